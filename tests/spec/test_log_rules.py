"""What may stand in `logs`, and what is said of what may not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelyard._kit.errors import Problem

Judge = Callable[[str], list[Problem]]
FILE = "project: p\ndata: {t: {from: data/a.csv}}\nmodel:\n  target: y\nlogs:\n"

# Text of the section -> code, words of the message, words of the hint.
WRONG = {
    "plain http elsewhere": ("  to: http://logs.example.org/in", "spec-bad-address", "another machine", "https://"),
    "password in the address": ("  to: ['https://me:pw@logs.example.org/in']", "spec-secret", "password", "env:NAME"),
    "key in the address": ("  to: https://logs.example.org/in?api_key=abc", "spec-secret", "a key", "env:NAME"),
    "no scheme": ("  to: logs.example.org", "spec-bad-address", "no sink", "https://HOST/PATH"),
    "a secret for a token": ("  to: syslog\n  token: abc123", "spec-secret", "is not the token", "env:NAME"),
    "token without an address": ("  to: syslog\n  token: env:T", "spec-contradiction", "has none", "take it out"),
    "a chat": ("  to: slack://a/b/c", "spec-bad-address", "no sink", "syslog"),
    "twice": ("  to: [syslog, syslog]", "spec-contradiction", "stands twice", "keep one"),
    "no time at all": ("  keep: 0s", "spec-bad-duration", "", ""),
    "a negative time": ("  keep: -3d", "spec-bad-duration", "", ""),
    "gone at once": ("  keep: 5m", "spec-contradiction", "within the hour", "30d"),
    "hardly a line": ("  size: 10kB", "spec-contradiction", "megabyte", "1GB"),
    "a field that is not there": ("  sinks: [syslog]", "spec-unknown-field", "sinks", ""),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_may_not_stand_there(case: str, problems: Judge) -> None:
    text, code, message, hint = WRONG[case]
    [problem] = problems(FILE + text)
    assert problem.code == code, problem
    assert message in problem.message
    assert hint in problem.hint
    assert problem.where.partition(":")[2] >= "6"
    for secret in ("me:pw", "abc", "a/b/c"):
        assert secret not in problem.message


@pytest.mark.parametrize(
    "text",
    [
        "  keep: 90d\n  size: 5GB",
        "  to: https://logs.example.org/in\n  token: env:LOGS_TOKEN",
        "  to: [syslog, 'syslog:/run/log.sock', env:LOG_SINK, file:/run/secrets/sink]",
        "  to: [http://127.0.0.1:8080/in, http://localhost/in]",
    ],
)
def test_what_may(text: str, problems: Judge) -> None:
    assert problems(FILE + text) == []
