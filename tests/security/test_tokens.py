"""Tokens are seen once, kept as a digest, and gone within a second when revoked."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard._kit.errors import NotFound, UserError
from modelyard.security.redact import redact
from modelyard.security.roles import MATRIX, ROLES, allowed
from modelyard.security.tokens import Caller, TokenBook, add_token, list_tokens, revoke_token


class Now:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_only_a_digest_is_kept(tmp_path: Path) -> None:
    text = add_token(tmp_path, "ana", "analyst")
    path = tmp_path / ".modelyard" / "keys" / "tokens.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert text.split("_", 2)[2] not in path.read_text()
    assert len(text) > 50
    (token,) = list_tokens(tmp_path)
    assert (token.name, token.role) == ("ana", "analyst")


def test_book_knows_whole_tokens_only(tmp_path: Path) -> None:
    ana, bob = add_token(tmp_path, "ana", "analyst"), add_token(tmp_path, "bob", "admin")
    book = TokenBook(tmp_path)
    assert book.find(ana) == Caller("ana", "analyst")
    assert book.find(bob) == Caller("bob", "admin")
    mixed = ana[:14] + bob[14:]
    for wrong in ("", "yard_", ana[:-1], ana + "x", ana.upper(), mixed, " " + ana, "yard_00000000_x", "\ud800"):
        assert book.find(wrong) is None, wrong


def test_revoked_token_is_refused_within_a_second(tmp_path: Path) -> None:
    now = Now()
    ana = add_token(tmp_path, "ana", "analyst", clock=now)
    book = TokenBook(tmp_path, clock=now)
    assert revoke_token(tmp_path, "ana").role == "analyst"
    now.time += 1
    assert book.find(ana) is None
    eve = add_token(tmp_path, "eve", "viewer", clock=now)
    now.time += 1
    assert book.find(eve) == Caller("eve", "viewer")


def test_file_that_others_may_read_closes_the_door(tmp_path: Path) -> None:
    now = Now()
    ana = add_token(tmp_path, "ana", "analyst")
    book = TokenBook(tmp_path, clock=now)
    path = tmp_path / ".modelyard" / "keys" / "tokens.json"
    path.write_text(path.read_text() + " ")
    path.chmod(0o644)
    now.time += 1
    assert book.find(ana) is None
    assert "chmod 600" in book.trouble
    with pytest.raises(UserError, match="key-permissions"):
        TokenBook(tmp_path)
    path.chmod(0o600)
    now.time += 1
    assert book.find(ana) is not None
    assert book.trouble == ""


@pytest.mark.parametrize(
    ("name", "role", "code"),
    [
        ("ana", "viewer", "token-exists"),
        ("", "viewer", "token-name"),
        ("a b", "viewer", "token-name"),
        ("x" * 65, "viewer", "token-name"),
        ("eve", "analist", "token-role"),
    ],
)
def test_bad_tokens_are_refused(tmp_path: Path, name: str, role: str, code: str) -> None:
    add_token(tmp_path, "ana", "analyst")
    with pytest.raises(UserError) as caught:
        add_token(tmp_path, name, role)
    assert caught.value.code == code
    assert caught.value.problem.hint
    assert len(list_tokens(tmp_path)) == 1


def test_unknown_and_unreadable(tmp_path: Path) -> None:
    add_token(tmp_path, "ana", "analyst")
    with pytest.raises(NotFound, match="did you mean `ana`"):
        revoke_token(tmp_path, "anna")
    (tmp_path / ".modelyard" / "keys" / "tokens.json").write_text("{")
    with pytest.raises(UserError, match="key-unreadable"):
        list_tokens(tmp_path)


def test_processes_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from modelyard.security.tokens import add_token\n"
        "for n in range(5): add_token(pathlib.Path(sys.argv[1]), f'{sys.argv[2]}-{n}', 'viewer')"
    )
    procs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(i)]) for i in range(4)]
    assert [p.wait(60) for p in procs] == [0] * 4
    assert len({t.name for t in list_tokens(tmp_path)}) == 20


def test_roles_deny_by_default() -> None:
    assert not allowed("", "read")
    assert not allowed("admin", "unheard-of")
    assert not allowed("root", "read")
    # Each role may do at least what the one before it may.
    rights = [{action for action in MATRIX if allowed(role, action)} for role in ROLES]
    assert rights[0] == {"read"}
    assert all(low <= high for low, high in itertools.pairwise(rights))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("token yard_0123abcd_aB3-_xyz used", "aB3-_xyz"),
        ("Authorization: bearer abc.def-1", "abc.def-1"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("postgresql://me:hunter2@db/x", "hunter2"),
        ('{"password": "hunter2"}', "hunter2"),
        ("api_key=hunter2&x=1", "hunter2"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n", "hunter2"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2", "hunter2"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----", "hunter2"),
        ("redis://:hunter2@cache:6379/0", "hunter2"),
        ("cannot connect to s3://AKIAIOSFODNN7EXAMPLE:hun/ter2@bucket/x", "ter2"),
        ("postgresql://me:p@ss:hunter2@db/x", "hunter2"),
        ("mysql+pymysql://me:hunter2@[::1]:3306/x", "hunter2"),
        ("AKIAIOSFODNN7EXAMPLE is not allowed to ListBucket", "AKIAIOSFODNN7EXAMPLE"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY", "wJalrXUtnFEMI"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "K7MDENG"),
        ("DB_PASSWORD='two words'", "two words"),
        ('connect(password="a\'b", port=1)', "a'b"),
        ("{'secret': 'hunter2'}", "hunter2"),
        ('{"access_token":"hunter2"}', "hunter2"),
        ("x-api-key: hunter2", "hunter2"),
        ("AccountKey=hunter2==;EndpointSuffix=core", "hunter2"),
        ("https://x/blob?sv=1&sig=abc123%2Bdef&se=2", "abc123"),
        ("https://x/maps?key=AIzaSyA1234567", "AIzaSyA1234567"),
        ("?token=0123456789abcdef", "0123456789abcdef"),
        ('{"token": "0123456789abcdef"}', "0123456789abcdef"),
        ("pushed with ghp_0123456789abcdefghij", "ghp_0123456789abcdefghij"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_1", "eyJzdWIiOiIxIn0"),
    ],
)
def test_secrets_are_masked(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert "[redacted]" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "trained 3 models at http://127.0.0.1:8000/runs in 2 s; signature holds",
        "KeyError: 'income'",
        "no column `id`, which `key` or `cursor` names",
        "sorted(rows, key=lambda row: row.income2)",
        "unexpected token: )",
        "a bearer of good news; basic arithmetic",
        "http://localhost:8080/users/me@example.org",
        "https://user@example.org/x",
        "digest 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "step `train`: password_age is no number",
    ],
)
def test_plain_text_stays(text: str) -> None:
    assert redact(text) == text


def test_the_name_of_a_secret_stays() -> None:
    assert redact("AWS_SECRET_ACCESS_KEY=abc region=eu") == "AWS_SECRET_ACCESS_KEY=[redacted] region=eu"
    assert redact("https://me:hunter2@db:5432/x") == "https://[redacted]@db:5432/x"
    twice = "password=hunter2 Bearer abcdefgh"
    assert redact(redact(twice)) == redact(twice)
