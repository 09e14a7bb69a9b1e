"""Addresses of alerts: what kind they are, what may be called by them, and whether they hold a secret."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from modelyard._kit.errors import near

if TYPE_CHECKING:
    from modelyard.spec.sections.alerts import Told

__all__ = [
    "SOURCES",
    "Wrong",
    "apprise_of",
    "chat_of",
    "made_name",
    "names",
    "people",
    "problem_of",
    "scheme_of",
    "source_of",
]

# What an address is read from, where it may not stand in the file.
SOURCES = ("env", "file")
_OURS = ("mailto", "http", "https", *SOURCES)
# A variable is written as people write it; what a secret looks like does not fit.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PERSON = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?=.{1,253}\Z)[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
# Chats whose every address holds a key. For the others Apprise is asked; it takes most of a second to load.
_KEYED = (
    *("slack", "discord", "tgram", "msteams", "workflows", "workflow", "gchat", "mmost", "mmosts", "rocket", "rockets"),
    *("pover", "pbul", "gotify", "gotifys", "opsgenie", "pagerduty", "pagertree", "splunk", "victorops", "wxteams"),
    *("zulip", "guilded", "lark", "dingtalk", "wecombot", "sendgrid", "twilio"),
)
_PLAIN = ("ntfy", "ntfys", "syslog", "dbus")
# Web addresses of chats that have their own form of message, and the scheme under which Apprise knows them.
_CHATS = {
    "hooks.slack.com": "slack",
    "discord.com": "discord",
    "discordapp.com": "discord",
    "chat.googleapis.com": "gchat",
    "api.telegram.org": "tgram",
}
_KEYS = re.compile(r"(?i)(sig|signature|key|token|code|secret|password|auth|api_?key|access_?token)\Z")


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with an address: a code, a sentence that does not show it, and the next step."""

    code: str
    message: str
    hint: str


def scheme_of(address: str) -> str:
    """Return what stands before the colon, in small letters; nothing where there is none."""
    found = _SCHEME.match(address.strip())
    return found[1].lower() if found else ""


def source_of(text: str) -> tuple[str, str] | None:
    """Return `("env", NAME)` or `("file", PATH)` of a text that names where a value is, else none."""
    kind, colon, where = text.strip().partition(":")
    return (kind, where.removeprefix("//")) if colon and kind in SOURCES else None


def people(address: str) -> list[str]:
    """Return the addresses in a `mailto:`."""
    return [one.strip() for one in address.strip()[len("mailto:") :].split(",")]


def chat_of(address: str) -> str:
    """Return the scheme of the chat that a web address belongs to, or nothing."""
    host = (_split(address) or urlsplit("")).hostname or ""
    return _CHATS.get(host, "") or ("msteams" if host.endswith(".webhook.office.com") else "")


def names(targets: Sequence[Told]) -> list[str]:
    """Return the name of each target: its own, or one made of its address that tells no secret.

    Names that would be made twice are numbered.
    """
    found: list[str] = [told.name or "" for told in targets]
    taken = {name for name in found if name}
    for index, told in enumerate(targets):
        if found[index]:
            continue
        made = made_name(told.to)
        name, number = made, 1
        while name in taken:
            number += 1
            name = f"{made}-{number}"
        taken.add(name)
        found[index] = name
    return found


def made_name(address: str) -> str:
    """Return a name for an address: its variable or file, or its kind and host.

    Examples:
        >>> made_name("mailto:ml@example.org"), made_name("env:ML_HOOK"), made_name("slack://a/b/c")
        ('mail-example.org', 'ml-hook', 'slack')
    """
    source, scheme = source_of(address), scheme_of(address)
    if source is not None:
        name = source[1].rpartition("/")[2].lower().replace("_", "-")
    elif scheme == "mailto" and not address.strip().startswith("mailto://"):
        name = f"mail-{people(address)[0].rpartition('@')[2]}"
    elif scheme in ("http", "https"):
        name = chat_of(address) or f"hook-{(_split(address) or urlsplit('')).hostname or ''}"
    else:
        name = scheme
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60] or "target"


def problem_of(address: str, *, given: bool = True) -> Wrong | None:
    """Say what is wrong with an address, without showing what may be a secret in it.

    Args:
        address: As it was written.
        given: Whether it stands in the file, where it may hold no secret; else a variable held it.
    """
    text = address.strip()
    source = source_of(text)
    if source is not None:
        return _bad_source(*source) if given else _not_again(source[0])
    if not text or any(not sign.isprintable() for sign in text):
        return Wrong("spec-bad-address", "the address is empty or holds a line break", _hint())
    scheme = scheme_of(text)
    if not scheme:
        return _no_scheme(text)
    if scheme == "mailto" and not text.startswith("mailto://"):
        return _bad_mail(text)
    if scheme in ("http", "https"):
        return _bad_web(text, given=given)
    return _bad_chat(text, scheme, given=given)


def apprise_of(address: str) -> Any:
    """Return what Apprise makes of an address, or none if it knows no such scheme or cannot read the rest.

    It is asked quietly: what it would say of an address may show the address.
    """
    import logging

    logging.getLogger("apprise").propagate = False
    logging.getLogger("apprise").addHandler(logging.NullHandler())
    import apprise

    return apprise.Apprise.instantiate(address, suppress_exceptions=True)


def _hint() -> str:
    return "for example `mailto:ml@example.org`, `https://hooks.example.org/ml` or `env:ML_HOOK`"


def _bad_source(kind: str, where: str) -> Wrong | None:
    if kind == "env" and not _VARIABLE.fullmatch(where):
        return Wrong("spec-bad-address", "`env:` is followed by the name of a variable", "for example `env:ML_HOOK`")
    if kind == "file" and (not where or "\0" in where):
        return Wrong("spec-bad-address", "`file:` is followed by a path", "for example `file:/run/secrets/ml-hook`")
    return None


def _not_again(kind: str) -> Wrong:
    return Wrong("spec-bad-address", f"it names `{kind}:` once more", "let it hold the address itself")


def _no_scheme(text: str) -> Wrong:
    if _PERSON.fullmatch(text):
        return Wrong("spec-bad-address", f'"{text}" has no scheme', f"did you mean `mailto:{text}`?")
    if _VARIABLE.fullmatch(text) and text.isupper():
        return Wrong("spec-bad-address", f'"{text}" has no scheme', f"did you mean `env:{text}`?")
    return Wrong("spec-bad-address", "the address has no scheme", _hint())


def _bad_mail(text: str) -> Wrong | None:
    if "?" in text:
        return Wrong("spec-bad-address", "`mailto:` takes addresses only", "leave out what follows the `?`")
    for person in people(text):
        if not _PERSON.fullmatch(person):
            return Wrong("spec-bad-address", f'"{person}" is no mail address', "for example `mailto:ml@example.org`")
    return None


def _split(text: str) -> SplitResult | None:
    try:
        found = urlsplit(text.strip())
        _ = found.port
    except ValueError:
        return None
    return found


def _bad_web(text: str, *, given: bool) -> Wrong | None:
    found = _split(text)
    if found is None or not found.hostname or any(sign.isspace() for sign in text):
        return Wrong("spec-bad-address", "the web address cannot be read", "for example `https://hooks.example.org/ml`")
    if found.username is not None or found.password is not None:
        if given:
            return _secret("a user or a password")
        return Wrong("spec-bad-address", "the web address holds a user", "sign with `secret` instead")
    if given and chat_of(text):
        return _secret("the key of a chat")
    if given and any(_KEYS.match(name) for name, _ in parse_qsl(found.query)):
        return _secret("a key")
    return None


def _bad_chat(text: str, scheme: str, *, given: bool) -> Wrong | None:
    found = _split(text)
    if given and ((found is not None and found.password is not None) or scheme in _KEYED):
        return _secret("a password" if found is not None and found.password is not None else "a key")
    if scheme in _PLAIN and (found is None or found.username is None):
        return None
    made = apprise_of(text)
    if made is None:
        return _unknown(scheme)
    if given and made.url(privacy=True) != made.url(privacy=False):
        return _secret("a key or a password")
    return None


def _secret(what: str) -> Wrong:
    return Wrong(
        "spec-secret",
        f"the address holds {what}, and the file is no place for a secret",
        "put the address into a variable and write `env:NAME`, or into a file of its own and write `file:PATH`",
    )


def _unknown(scheme: str) -> Wrong:
    import apprise

    known = {
        p
        for s in apprise.Apprise().details()["schemas"]
        for p in (*(s["protocols"] or ()), *(s["secure_protocols"] or ()))
    }
    if scheme in known:
        return Wrong(
            "spec-bad-address",
            f"`{scheme}://` is known to Apprise, and it cannot read what follows",
            "hold it against the page of that service in Apprise's documentation",
        )
    close = near(scheme, sorted({*_OURS, *known}))
    hint = "did you mean " + " or ".join(f"`{c}:`" for c in close) + "?" if close else _hint()
    return Wrong("spec-bad-address", f"`{scheme}:` is no kind of address that is known", hint)
