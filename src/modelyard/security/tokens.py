"""The callers of the server: API tokens, of which only a digest is kept.

A token reads `yard_ID_SECRET`. `.modelyard/keys/tokens.json` (mode 0600) holds, by id, the name, the role and
the SHA-256 of the whole token. The secret has 256 random bits, so a plain digest cannot be searched through.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.digest import digest_bytes
from modelyard._kit.errors import ModelyardError, NotFound, UserError, near
from modelyard._kit.files import write_atomic
from modelyard.security.keys import keys_folder, own_folder, read_private
from modelyard.security.roles import ROLES

__all__ = ["Caller", "Token", "TokenBook", "add_token", "list_tokens", "revoke_token"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Compared with where there is no such id, so that both answers take the same time.
_NOBODY = digest_bytes(b"nobody")


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """One token as it is kept.

    Attributes:
        id: Public part of the token.
        name: Who it was made for; stands in the request log.
        role: What it may do at every endpoint of the project that `roles` does not name; empty for nothing.
        hash: SHA-256 of the whole token.
        created: Seconds since 1970 UTC.
        roles: Endpoint -> what it may do there.
    """

    id: str
    name: str
    role: str
    hash: str
    created: float
    roles: dict[str, str] = {}

    def role_at(self, endpoint: str) -> str:
        """Return what it may do at an endpoint; empty: nothing."""
        return self.roles.get(endpoint, self.role)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever a token was made for."""

    name: str
    role: str


def add_token(
    root: Path, name: str, role: str, *, roles: dict[str, str] | None = None, clock: Clock = system_clock
) -> str:
    """Make a token and return it; this is the only time that it can be seen.

    Args:
        root: Folder of the project.
        name: Who it is for.
        role: What it may do at every endpoint that `roles` does not name; empty for nothing.
        roles: Endpoint -> what it may do there.
        clock: Source of the time.

    Raises:
        UserError: The name is taken (`token-exists`) or no name (`token-name`), or there is no such role
            (`token-role`).
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            "token-name",
            f"`{name}` cannot be the name of a token",
            hint="begin with a letter or digit; then letters, digits, `.`, `_`, `-`, 64 at most",
        )
    given = dict(roles or {})
    for one in [*given.values(), *([role] if role or not given else [])]:
        if one not in ROLES:
            close = near(one, ROLES)
            hint = f"did you mean `{close[0]}`?" if close else f"roles: {', '.join(ROLES)}"
            raise UserError("token-role", f"there is no role `{one}`", hint=hint)
    with _changing(root) as tokens:
        if any(t.name == name for t in tokens):
            raise UserError(
                "token-exists",
                f"there is a token named `{name}`",
                hint=f"choose another name, or `modelyard token revoke {name}` first",
            )
        text = f"yard_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
        made = digest_bytes(text.encode())
        tokens.append(Token(id=text[5:13], name=name, role=role, hash=made, created=clock(), roles=given))
    return text


def revoke_token(root: Path, name: str) -> Token:
    """Take a token out; servers that run refuse it within a second.

    Raises:
        NotFound: There is no token of this name.
    """
    with _changing(root) as tokens:
        for token in tokens:
            if token.name == name:
                tokens.remove(token)
                return token
        raise NotFound.of("token", name, (t.name for t in tokens))


def list_tokens(root: Path) -> list[Token]:
    """Return the tokens, oldest first.

    Raises:
        UserError: Others may read the file (`key-permissions`), or it is not a list of tokens (`key-unreadable`).
    """
    path = keys_folder(root) / "tokens.json"
    try:
        return msgspec.json.decode(read_private(path), type=list[Token])
    except FileNotFoundError:
        return []
    except msgspec.DecodeError:
        raise UserError(
            "key-unreadable",
            f"`{path}` is not a list of tokens",
            where=str(path),
            hint="move the file away and make new tokens with `modelyard token add NAME`",
        ) from None


class TokenBook:
    """The tokens as a server sees them, read again when the file changes.

    Args:
        root: Folder of the project.
        clock: Source of the time.
        every: Seconds between two looks at the file.

    Attributes:
        trouble: Why the file cannot be used at the moment; until it can, nobody is known.
    """

    def __init__(self, root: Path, *, clock: Clock = system_clock, every: float = 1.0) -> None:
        self._root = root
        self._path = keys_folder(root) / "tokens.json"
        self._clock = clock
        self._every = every
        self._looked = 0.0
        self._stamp: tuple[int, int, int] | None = None
        self._by_id: dict[str, Token] = {}
        self.trouble = ""
        self._look()

    def find(self, text: str, endpoint: str = "") -> Caller | None:
        """Return whose token this is, with their role at an endpoint, or none."""
        if not 0 <= self._clock() - self._looked < self._every:
            try:
                self._look()
                self.trouble = ""
            except (ModelyardError, OSError) as error:
                self._by_id, self._stamp, self.trouble = {}, None, str(error)
        token = self._by_id.get(text[5:13])
        kept = token.hash if token else _NOBODY
        same = hmac.compare_digest(digest_bytes(text.encode("utf-8", "surrogatepass")), kept)
        return Caller(token.name, token.role_at(endpoint)) if token and same else None

    def _look(self) -> None:
        self._looked = self._clock()
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        except FileNotFoundError:
            stamp = (0, 0, 0)
        if stamp != self._stamp:
            self._by_id = {t.id: t for t in list_tokens(self._root)}
            self._stamp = stamp


@contextmanager
def _changing(root: Path) -> Iterator[list[Token]]:
    """Hand out the list of tokens, alone among all processes, and write it back."""
    folder = own_folder(root)
    handle = os.open(folder / "tokens.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        tokens = list_tokens(root)
        yield tokens
        write_atomic(folder / "tokens.json", msgspec.json.encode(tokens), mode=0o600)
    finally:
        os.close(handle)
