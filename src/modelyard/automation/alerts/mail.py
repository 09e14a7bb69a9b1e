"""Hand a message to a mail server.

Not by Apprise: its mail address holds user and password, and it makes a new Message-ID each time, by which a mail that
is sent again after a crash could not be told from a second one.
"""

from __future__ import annotations

import platform
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime
from typing import Any

from modelyard.automation.alerts.text import Message
from modelyard.automation.alerts.undelivered import Undelivered, masked
from modelyard.spec.sections.alerts import Mail

__all__ = ["PASSWORD", "letter", "send_mail"]

PASSWORD = "MODELYARD_SMTP_PASSWORD"  # noqa: S105 - name of a variable
_SECONDS = 15.0


def sender_of(mail: Mail) -> str:
    """Return the address that mails come from."""
    if mail.from_ is not None:
        return mail.from_
    if mail.user is not None and "@" in mail.user:
        return mail.user
    return f"modelyard@{platform.node() or 'localhost'}"


def letter(message: Message, people: Sequence[str], mail: Mail) -> EmailMessage:
    """Return a mail: plain text and HTML, with a Message-ID that stays the same when it is sent again."""
    origin = sender_of(mail)
    made = EmailMessage(policy=SMTP)
    made["Subject"] = message.title
    made["From"] = origin
    made["To"] = ", ".join(people)
    made["Date"] = format_datetime(localtime())
    made["Message-ID"] = f"<{message.id}@{origin.rpartition('@')[2]}>"
    # No out-of-office answers to a program.
    made["Auto-Submitted"] = "auto-generated"
    made["X-Auto-Response-Suppress"] = "All"
    if message.urgency == "high":
        made["Importance"] = "high"
    made["X-Modelyard-Alert"] = message.id
    made.set_content(message.text)
    made.add_alternative(message.html, subtype="html")
    return made


def send_mail(message: Message, people: Sequence[str], mail: Mail, password: str = "") -> str:
    """Hand a message to the server for all its readers.

    Args:
        message: What is sent.
        people: Their addresses.
        mail: The server.
        password: Of `mail.user`.

    Returns:
        What the server said, or that it refused some of the readers.

    Raises:
        Undelivered: It could not be reached, or took the mail for nobody.
    """
    if mail.user is not None and not password:
        raise Undelivered(f"`{PASSWORD}` is not set, and `mail.user` signs in with it")
    made = letter(message, people, mail)
    try:
        with _connected(mail) as server:
            if mail.user is not None:
                server.login(mail.user, password)
            refused = server.send_message(made, from_addr=sender_of(mail), to_addrs=list(people))
            answer = f"{server.answer[0]} {_text(server.answer[1])}"
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()), (550, b"refused"))
        raise Undelivered(masked(f"the server takes mail for nobody of them: {code} {_text(said)}", *people)) from None
    except smtplib.SMTPAuthenticationError as error:
        raise Undelivered(f"the server does not know the user or the password: {error.smtp_code}") from None
    except smtplib.SMTPResponseException as error:
        why = f"the server answered {error.smtp_code} {_text(error.smtp_error)}"
        raise Undelivered(masked(why, *people, password)) from None
    except (smtplib.SMTPException, OSError) as error:
        raise Undelivered(masked(f"{type(error).__name__}: {error}", *people, password)) from None
    if refused:
        # The others have it: sending it again would double it for them.
        return f"refused for {len(refused)} of {len(people)} addresses"
    return masked(answer, *people, password)


class _Answering(smtplib.SMTP):
    """Keeps what the server says when it has the whole mail; `smtplib` throws it away."""

    answer: tuple[int, bytes | str] = (250, "")

    def data(self, msg: Any) -> tuple[int, bytes]:
        self.answer = found = super().data(msg)
        return found


class _Encrypted(_Answering, smtplib.SMTP_SSL):
    """The same over TLS from the first byte."""


def _connected(mail: Mail) -> _Answering:
    if mail.encryption == "direct":
        context = ssl.create_default_context()
        return _Encrypted(mail.host, mail.at_port, timeout=_SECONDS, context=context)
    server = _Answering(mail.host, mail.at_port, timeout=_SECONDS)
    if mail.encryption == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
    return server


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said
