"""Secrets of the environment are masked wherever they are said."""

from __future__ import annotations

import pytest

from modelyard.security.redact import redact


@pytest.mark.parametrize("name", ["DB_PASSWORD", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "api_key", "PGPASSWORD"])
def test_the_value_of_a_secret_variable_is_masked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "swordfish/7")
    assert redact("logged in as swordfish/7") == "logged in as [redacted]"
    assert redact("GET /?q=swordfish%2F7") == "GET /?q=[redacted]"
    monkeypatch.setenv(name, "another one")
    assert redact("logged in as another one") == "logged in as [redacted]"
    monkeypatch.delenv(name)
    assert redact("logged in as another one") == "logged in as another one"


@pytest.mark.parametrize(
    ("name", "value"), [("PWD", "/home/me/project"), ("KEYBOARD", "qwertz-de"), ("SSH_AUTH_SOCK", "/tmp/agent.1")]
)
def test_other_variables_are_not(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert redact(f"in {value}") == f"in {value}"


def test_a_short_value_would_be_found_in_harmless_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "on")
    assert redact("one option") == "one option"
