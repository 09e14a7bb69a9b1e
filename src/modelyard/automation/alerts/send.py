"""Hand a message to its target, whatever that is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from modelyard._kit.clock import Clock
from modelyard._kit.errors import UserError
from modelyard.automation.alerts.chat import Chat
from modelyard.automation.alerts.hook import post
from modelyard.automation.alerts.mail import PASSWORD, send_mail
from modelyard.automation.alerts.routes import Target
from modelyard.automation.alerts.text import Message
from modelyard.automation.alerts.undelivered import Undelivered
from modelyard.automation.triggers.secret import read_secret
from modelyard.spec import Spec
from modelyard.spec.sections.addresses import chat_of, people, problem_of, scheme_of, source_of
from modelyard.spec.sections.alerts import Mail

__all__ = ["Post", "address_of"]


def address_of(text: str, root: Path) -> str:
    """Return an address or a secret, from the variable or the file that is named.

    Args:
        text: As it stands in the declaration.
        root: Folder of the project.

    Raises:
        Undelivered: It is not set, or cannot be read.
    """
    source = source_of(text)
    if source is None:
        return text.strip()
    kind, where = source
    try:
        return read_secret(where if kind == "env" else f"file:{where}", root)
    except UserError as error:
        raise Undelivered(error.problem.message) from None


class Post:
    """Hands messages over; one for each thread, since what was made of a chat's address is kept.

    Args:
        spec: Returns the declaration as it is now.
        clock: Source of the time.
    """

    def __init__(self, spec: Callable[[], Spec], *, clock: Clock = time.time) -> None:
        self._spec = spec
        self._clock = clock
        self._chats: dict[str, Chat] = {}

    def __call__(self, target: Target, message: Message) -> str:
        """Hand a message over.

        Returns:
            What the target said.

        Raises:
            Undelivered: It was not taken; the reason shows no address and no secret.
        """
        spec = self._spec()
        address = address_of(target.told.to, spec.root)
        wrong = problem_of(address, given=False)
        if wrong is not None:
            raise Undelivered(f"{wrong.message}: {wrong.hint}")
        scheme = scheme_of(address)
        if scheme == "mailto" and not address.startswith("mailto://"):
            return send_mail(message, people(address), spec.mail or Mail(), os.environ.get(PASSWORD, ""))
        if scheme in ("http", "https") and not chat_of(address):
            secret = address_of(target.told.secret, spec.root) if target.told.secret else ""
            private = target.told.private
            return post(address, message, project=spec.project, secret=secret, private=private, clock=self._clock)
        chat = self._chats.get(address)
        if chat is None:
            chat = self._chats[address] = Chat(address)
        return chat.send(message)
