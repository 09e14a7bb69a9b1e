"""The address of a shared store: `postgresql://USER@HOST/DATABASE?schema=income`, never with a password in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from modelyard._kit.errors import UserError, near
from modelyard._kit.fields import parse_duration

__all__ = ["BEAT", "LEASE", "TIMEOUT", "Address", "check_schema", "parse_address"]

# Seconds without word from a holder after which its name is free, between two of its words, and for an answer.
LEASE, BEAT, TIMEOUT = 10.0, 3.0, 30.0

_SCHEMES = ("postgresql", "postgres")
_SECRETS = ("password", "sslpassword")
_TIMES = ("lease", "beat", "timeout")
# Settings of the connection that are handed on, as libpq names them.
_LIBPQ = (
    *("host", "hostaddr", "port", "dbname", "user", "passfile", "service", "connect_timeout", "application_name"),
    *("channel_binding", "require_auth", "target_session_attrs", "load_balance_hosts", "requirepeer"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
    *("sslmode", "sslnegotiation", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "sslsni"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "gssencmode", "krbsrvname"),
)
# A colon before an @ is a password, also where it holds a slash that nobody escaped.
_WITH_PASSWORD = re.compile(r"://[^?@]*:[^?]*@")
# What Postgres takes as a name of up to 63 bytes, and what a project may be called.
_SCHEMA = re.compile(r"(?!pg_)[A-Za-z_][A-Za-z0-9_-]{0,62}")
_HINT = "for example `postgresql://modelyard@db.example.org/modelyard`"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a shared store is.

    Attributes:
        url: What libpq takes.
        schema: Schema of the project in the database; empty: the project's name.
        files: Folder of the blobs and tables, that all machines share; empty: the project's `.modelyard/`.
        lease: Seconds without word from a holder after which its name is free.
        beat: Seconds between two of its words.
        timeout: Seconds that a statement, a lock or a lost connection is waited for.
    """

    url: str
    schema: str = ""
    files: str = ""
    lease: float = LEASE
    beat: float = BEAT
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        """Hold the times against each other."""
        if self.beat * 2 > self.lease:
            raise _unusable(
                f"`beat` is {self.beat:g} s and `lease` {self.lease:g} s",
                "let a lease be two beats or longer, so that a lost one does not end it",
            )

    @property
    def shown(self) -> str:
        """The address without its settings, for messages."""
        return self.url.partition("?")[0]

    @property
    def text(self) -> str:
        """The whole address, as `parse_address` takes it."""
        own = {"schema": self.schema, "files": self.files}
        own |= {name: f"{getattr(self, name):g}s" for name in _TIMES}
        given = urlencode({name: value for name, value in own.items() if value}, quote_via=quote, safe="/")
        return f"{self.url}{'&' if '?' in self.url else '?'}{given}"


def parse_address(text: str) -> Address:
    """Read the address of a shared store.

    Args:
        text: `postgresql://[USER@]HOST[:PORT]/DATABASE[?SETTING=VALUE&...]`. Our settings are `schema`, `files`,
            `lease`, `beat` and `timeout` (`10s`, `500ms`); others are those of libpq (`sslmode`, `passfile`, ...).

    Raises:
        UserError: It holds a password (`store-password`), or cannot be read (`store-address`).
    """
    # What is wrong here is never repeated: it may hold a password in another form.
    if text.partition("://")[0] not in _SCHEMES:
        raise _unusable("the address of a store begins with `postgresql://`, or is `local`")
    if _WITH_PASSWORD.search(text):
        raise _with_password()
    try:
        parts = urlsplit(text)
        settings = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise _unusable("the address of the store is no URL") from None
    if parts.fragment:
        raise _unusable("the address of the store has a `#` in it", "write it as `%23`")
    if any(secret in settings for secret in _SECRETS):
        raise _with_password()
    own = {name: settings.pop(name) for name in ("schema", "files", *_TIMES) if name in settings}
    _check(own, settings)
    times = {name: _seconds(name, own[name]) for name in _TIMES if name in own}
    # Not `urlunsplit`, which leaves the slashes out where there is no host.
    handed = urlencode(settings, quote_via=quote, safe="/")
    url = f"{parts.scheme}://{parts.netloc}{parts.path}{'?' if handed else ''}{handed}"
    return Address(url, schema=own.get("schema", ""), files=own.get("files", ""), **times)


def _check(own: dict[str, str], others: dict[str, str]) -> None:
    known = ("schema", "files", *_TIMES, *_LIBPQ)
    for name in others:
        if name not in _LIBPQ:
            close = near(name, known)
            raise _unusable(
                f"the address of the store has no setting `{name}`",
                f"did you mean `{close[0]}`?" if close else f"there is: {', '.join(known[:5])}, and those of libpq",
            )
    if "schema" in own:
        check_schema(own["schema"])
    if "files" in own and not Path(own["files"]).is_absolute():
        raise _unusable(f"`files={own['files']}` is no absolute path", "name the folder from its root: `/mnt/team`")


def check_schema(name: str) -> str:
    """Return the name of a schema if it may be one.

    Raises:
        UserError: It may not (`store-address`).
    """
    if not _SCHEMA.fullmatch(name):
        raise _unusable(
            f"`{name}` is no name of a schema",
            "give one as `schema=`: a letter, then letters, digits, `_` and `-`, at most 63; not `pg_...`",
        )
    return name


def _seconds(name: str, text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError:
        raise _unusable(f"`{name}={text}` is no time", "give a number with a unit: `10s`, `500ms`") from None
    if not 0.05 <= seconds <= 3600:
        raise _unusable(f"`{name}={text}` is out of range", "give 50ms to 1h")
    return seconds


def _unusable(message: str, hint: str = _HINT) -> UserError:
    return UserError("store-address", message, hint=hint)


def _with_password() -> UserError:
    return UserError(
        "store-password",
        "the address of the store holds a password",
        hint="take it out: give it as PGPASSWORD in the environment, or in a password file (~/.pgpass, `passfile=`)",
    )
