"""Checks of the answers: what they mark is held back, and what goes wrong in them is treated as declared."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard._kit.errors import ServeError
from modelyard.checks.profile import profile
from modelyard.inference import BundleDraft
from modelyard.serving.guards import plugins
from modelyard.serving.guards.base import Batch
from modelyard.serving.guards.checks import verdicts
from modelyard.serving.guards.rules import built_in
from modelyard.serving.http.connection import Connection

from .conftest import MIXED, mixed_bundle, regression_bundle  # noqa: TID252 - the suite is not installed
from .echo import Wire  # noqa: TID252
from .inprocess import Endpoint, logged  # noqa: TID252

# The mixed model says `yes` to the first and `no` to the second.
YES, NO = {"age": 60, "income": 0.0, "city": "paris"}, {"age": 18, "income": 9000.0, "city": "rome"}
ROWS = {"rows": [YES, NO]}
Open = Callable[..., Endpoint]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Open an endpoint with checks; a text is put into `guards.py`."""

    def make(
        *checks: Any, code: str = "", made: BundleDraft | None = None, declared: Any = None, **guards: Any
    ) -> Endpoint:
        (tmp_path / "guards.py").write_text(code)
        return Endpoint(tmp_path, made or mixed_bundle(), {"checks": checks, **guards}, declared=declared)

    return make


def own(name: str = "check", **more: Any) -> dict[str, Any]:
    return {"use": f"guards.py:{name}", "timeout": 30, **more}


def profiled(made: BundleDraft, signature: Any, columns: dict[str, Any], answers: Any) -> BundleDraft:
    files = {**made.files, "profile.json": json.dumps(profile(columns, signature, answers)).encode()}
    files.pop("model.json")
    return BundleDraft.of(made.version, files)


def batch(*answers: Any, **columns: Any) -> Batch:
    return Batch([{"prediction": answer} for answer in answers], lambda: columns)


# --- own functions


def test_what_an_own_function_marks_is_held_back_and_only_the_log_knows_why(opened: Open) -> None:
    code = "def check(batch, *, word):\n    return ['it says so' if a == word else None for a in batch.answers]\n"
    with opened(own(params={"word": "yes"}), code=code) as endpoint:
        ((status, body),) = endpoint.ask(ROWS)
        assert status == 200
        assert body["predictions"][0] == {"label": None, "withheld": "check"}
        assert body["predictions"][1]["label"] == "no"
        assert endpoint.service.tally.decided["check", "abstain"] == 1
        first, second = logged(endpoint)
    assert (first["withheld"], first["reason"]) == ("check", "it says so")
    assert set(first["probabilities"]) == {"no", "yes"}
    assert "withheld" not in second


@pytest.mark.parametrize("do", ["abstain", "warn"])
@pytest.mark.parametrize(
    ("check", "code"),
    [
        ({"use": "blocklist", "params": {"terms": ["paris"], "columns": ["city"]}}, ""),
        (own(), "def check(batch):\n    return [f'it is {city}' for city in batch.inputs['city']]\n"),
        (own(), "def check(batch):\n    return [1000.0 + (city == 'paris') for city in batch.inputs['city']]\n"),
        (own(on_error="abstain"), "def check(batch):\n    return [float(city) for city in batch.inputs['city']]\n"),
    ],
)
def test_a_reason_does_not_tell_what_is_redacted(
    opened: Open, check: Any, code: str, do: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = {**check, "do": do}
    with opened(checks, code=code, declared={"requests": {"redact": ["city"]}}) as endpoint:
        ((status, _),) = endpoint.ask(YES)
        assert status == 200
        (one,) = logged(endpoint)
        assert sum(endpoint.service.tally.decided.values()) >= 1
    if do == "abstain":
        assert one["withheld"] == ("blocklist" if check["use"] == "blocklist" else "check")
        assert one["reason"] in ("it is marked", "the check failed")
    for text in (json.dumps(one), capsys.readouterr().err):
        assert not any(word in text for word in ("paris", "1001"))


def test_the_reason_is_written_down_where_it_stands_in_nothing_redacted(opened: Open) -> None:
    words = {"use": "blocklist", "params": {"terms": ["paris"], "columns": ["city"]}}
    with opened(words, declared={"requests": {"redact": ["age"]}}) as endpoint:
        endpoint.ask(YES)
        (one,) = logged(endpoint)
    assert one["reason"] == "it holds `paris`"


@pytest.mark.parametrize(("do", "label"), [("fallback", "no"), ("warn", "yes"), ("abstain", None)])
def test_what_becomes_of_a_marked_answer(opened: Open, do: str, label: str | None) -> None:
    with opened(own(do=do), code="def check(batch):\n    return [0.9] * len(batch)\n", fallback="no") as endpoint:
        ((_, body),) = endpoint.ask(YES)
    assert body["predictions"][0]["label"] == label
    assert ("warnings" in body) == (do == "warn")
    if do == "warn":
        said = "the answer is marked by the check `check`"
        assert body["warnings"] == [{"kind": "check", "column": "*", "rows": 1, "message": said}]


def test_a_check_sees_inputs_answers_and_probabilities(opened: Open, tmp_path: Path) -> None:
    code = (
        "import json, pathlib\n"
        "def check(batch):\n"
        f"    file = pathlib.Path({str(tmp_path / 'seen.json')!r})\n"
        "    file.write_text(json.dumps([dict(batch.inputs), batch.answers, batch.probabilities]))\n"
        "    return [None] * len(batch)\n"
    )
    with opened(own(), code=code) as endpoint:
        endpoint.ask({"rows": [YES, {"age": 30, "income": None, "city": None}]})
    inputs, answers, probabilities = json.loads((tmp_path / "seen.json").read_text())
    assert inputs == {"age": [60.0, 30.0], "income": [0.0, None], "city": ["paris", None]}
    assert answers[0] == "yes"
    assert probabilities[0]["yes"] > 0.5


@pytest.mark.parametrize(
    "body",
    ["raise KeyError('x')", "return [0.1] * (len(batch) + 1)", "return None", "return [float('nan')] * len(batch)",
     "return [{}] * len(batch)",
     "raise SystemExit(1)", "return 3"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("do", "on_error", "label"),
    [("abstain", None, None), ("abstain", "accept", "yes"), ("fallback", None, "no"), ("warn", None, "yes"),
     ("warn", "abstain", None)],
)  # fmt: skip
def test_a_check_that_fails_is_treated_as_declared(
    opened: Open, capfd: pytest.CaptureFixture[str], body: str, do: str, on_error: str | None, label: str | None
) -> None:
    code = f"def check(batch):\n    {body}\n"
    with opened(own(do=do, on_error=on_error), code=code, fallback="no") as endpoint:
        for status, answer in endpoint.ask(YES, {"rows": [YES, YES]}):
            assert status == 200
            assert {row["label"] for row in answer["predictions"]} == {label}
        assert endpoint.service.tally.decided["check", "error"] == 3
    # Said once, not for each request.
    assert capfd.readouterr().err.count("the check `check` failed") == 1


def test_a_check_that_hangs_keeps_nobody_waiting(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(threading, "the_gate", gate, raising=False)
    code = "import threading\n\ndef check(batch):\n    threading.the_gate.wait()\n    return [None] * len(batch)\n"
    with opened(own(timeout=0.01), code=code) as endpoint:
        for _, body in endpoint.ask(*[YES] * 12):
            assert body["predictions"] == [{"label": None, "withheld": "check"}]
        # As many threads as there are hang; more are not begun.
        assert sum(thread.name == "guard" for thread in threading.enumerate()) <= 4
        gate.set()


def crowd(endpoint: Endpoint, count: int) -> list[Any]:
    """Ask on so many connections, each in a turn of its own, and return the predictions of all."""

    async def ask() -> list[Any]:
        wires = []
        for _ in range(count):
            wire, connection = Wire(), Connection(endpoint.app)
            connection.connection_made(wire)  # type: ignore[arg-type]
            connection.data_received(endpoint.request(YES))
            wires.append(wire)
            for _ in range(3):
                await asyncio.sleep(0)
        async with asyncio.timeout(20):
            while not all(wire.sent for wire in wires):
                await asyncio.sleep(0.005)
        return [json.loads(wire.sent.partition(b"\r\n\r\n")[2])["predictions"][0] for wire in wires]

    return asyncio.run(ask())


def test_the_time_of_a_check_begins_when_it_has_a_thread(opened: Open) -> None:
    code = "import time\n\ndef check(batch):\n    time.sleep(0.1)\n    return [None] * len(batch)\n"
    with opened(own(timeout=0.5), code=code) as endpoint:
        # With four threads the last of them begin after 0.9 s.
        found = crowd(endpoint, 40)
        assert endpoint.service.in_flight == 0
    assert [row["label"] for row in found] == ["yes"] * 40


def test_who_waits_for_a_thread_waits_no_longer_when_all_of_them_hang(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(threading, "the_gate", gate, raising=False)
    code = "import threading\n\ndef check(batch):\n    threading.the_gate.wait()\n    return [None] * len(batch)\n"
    with opened(own(timeout=0.1), code=code) as endpoint:
        assert crowd(endpoint, 12) == [{"label": None, "withheld": "check"}] * 12
        assert endpoint.service.in_flight == 0
        gate.set()


def test_each_request_is_answered_once_all_checks_have_looked(opened: Open) -> None:
    code = (
        "def one(batch):\n    return [a == 'yes' for a in batch.answers]\n\n"
        "def two(batch):\n    return [a == 'no' for a in batch.answers]\n"
    )
    with opened(own("one"), own("two"), code=code) as endpoint:
        for _, body in endpoint.ask(*[ROWS] * 20):
            assert [row["withheld"] for row in body["predictions"]] == ["one", "two"]
        assert endpoint.service.in_flight == 0


def test_large_requests_are_looked_at_too(opened: Open) -> None:
    with opened(own(), code="def check(batch):\n    return [a == 'no' for a in batch.answers]\n") as endpoint:
        ((status, body),) = endpoint.ask({"rows": [YES, NO] * 300})
    assert status == 200
    assert [row["label"] for row in body["predictions"]] == ["yes", None] * 300


@pytest.mark.parametrize("host", ["", "http://here"])
def test_the_open_protocol_refuses_what_is_held_back(opened: Open, host: str) -> None:
    tensors = [
        {"name": "numeric", "shape": [1, 2], "datatype": "FP32", "data": [60, 0]},
        {"name": "categorical", "shape": [1, 1], "datatype": "BYTES", "data": ["paris"]},
    ]
    with opened(own(), code="def check(batch):\n    return [True] * len(batch)\n") as endpoint:
        ((status, body),) = endpoint.ask({"inputs": tensors}, path=f"{host}/v2/models/credit/infer")
    assert status == 422
    assert "answer-withheld" in json.dumps(body)
    assert "`check`" in json.dumps(body)


@pytest.mark.parametrize(
    ("code", "says"),
    [("raise ValueError('no')", "ValueError: no"), ("check = 3", "is no function"), ("", "has no attribute"),
     ("def check(", "SyntaxError")],
)  # fmt: skip
def test_what_cannot_be_loaded_serves_nothing(opened: Open, code: str, says: str) -> None:
    with pytest.raises(ServeError, match=says) as caught:
        opened(own(), code=code)
    assert caught.value.code == "guard-unusable"


def test_an_installed_check_is_loaded_by_its_name_and_no_other(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("long", "tests.serving.test_checks:long", plugins.ENTRY_POINTS),
        EntryPoint("broken", "nowhere.at_all:check", plugins.ENTRY_POINTS),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == plugins.ENTRY_POINTS else [])
    with opened({"use": "long", "params": {"signs": 2}, "timeout": 30}) as endpoint:
        ((_, body),) = endpoint.ask(ROWS)
        assert [row["label"] for row in body["predictions"]] == [None, "no"]
    with pytest.raises(ServeError, match="cannot be loaded: ModuleNotFoundError"):
        opened({"use": "broken"})
    with pytest.raises(ServeError, match="did you mean `long`"):
        opened({"use": "lon"})


def long(batch: Batch, *, signs: int) -> list[bool]:
    return [len(str(answer)) > signs for answer in batch.answers]


# --- built-in ones


def test_words_and_patterns_are_found(opened: Open) -> None:
    rule = built_in("blocklist", {"terms": ["Idiot", "straße"], "patterns": [r"\bkill\w*", "(?i)^BOMB"]})
    check = rule.made(_bundle(opened))
    texts = ["you IDIOT!", "idiotic", "STRASSE 1", "skills", "killing", "a bomb", "Bomb it", "", None]
    found = check(batch(*texts))
    assert [bool(reason) for reason in found] == [True, False, True, False, True, False, True, False, False]
    assert found[0] == "it holds `idiot`"
    # Remembered, and the same again.
    assert check(batch(*texts)) == found


def test_the_time_of_a_pattern_grows_with_the_text_only(opened: Open) -> None:
    """A backtracking engine would be at this until the end of days."""
    check = built_in("blocklist", {"patterns": ["(a|a)*$b", "(a+)+$"]}).made(_bundle(opened))
    assert check(batch("a" * 100_000 + "!")) == [None]


def test_words_in_an_input(opened: Open) -> None:
    with opened({"use": "blocklist", "params": {"terms": ["rome"], "columns": ["city"]}}) as endpoint:
        ((_, body),) = endpoint.ask(ROWS)
    assert [row["label"] for row in body["predictions"]] == ["yes", None]


def test_only_allowed_labels_are_answered(opened: Open) -> None:
    with opened({"use": "labels", "params": {"allowed": ["no"]}}) as endpoint:
        ((_, body),) = endpoint.ask(ROWS)
    assert [row["label"] for row in body["predictions"]] == [None, "no"]


def test_an_answer_unlike_those_of_training_is_held_back(opened: Open) -> None:
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=5000), "b": rng.normal(size=5000)}
    made = regression_bundle()
    answers = (2 * columns["a"] + columns["b"]).reshape(-1, 1)
    made = profiled(made, made.version.signature, columns, answers)
    with opened({"use": "unusual", "params": {"score": 0.99}}, made=made) as endpoint:
        usual = {"rows": [{"a": float(a), "b": float(b)} for a, b in rng.normal(size=(2000, 2))]}
        (_, body), (_, far) = endpoint.ask(usual, {"a": 900.0, "b": 0.0})
    marked = sum("withheld" in row for row in body["predictions"])
    assert marked <= 40, marked
    assert far["predictions"] == [{"value": None, "withheld": "unusual"}]


def test_a_class_that_training_hardly_saw_is_unusual(opened: Open) -> None:
    answers = np.tile([[0.1, 0.9]], (5000, 1))
    columns = {"age": [30] * 5000, "income": [1.0] * 5000, "city": ["paris"] * 5000}
    made = profiled(mixed_bundle(), MIXED, columns, answers)
    with opened({"use": "unusual"}, made=made) as endpoint:
        ((_, body),) = endpoint.ask(NO)
    assert body["predictions"] == [{"label": None, "withheld": "unusual"}]


def _bundle(opened: Open) -> Any:
    from modelyard.inference import open_bundle
    from modelyard.security.keys import trusted_keys

    with opened({"use": "labels", "params": {"allowed": ["no"]}}) as endpoint:
        root = endpoint.log.path.parent
        return open_bundle(root / "bundles" / "credit", trusted=trusted_keys(root))


def test_verdicts_of_an_array_are_those_of_a_list() -> None:
    assert verdicts(np.array([0.2, 0.7]), 2, 0.5) == ["", "its score is 0.7"]
    assert verdicts(np.array([True, False]), 2, 0.5) == ["it is marked", ""]
    assert verdicts([np.float32(0.9), "why"], 2, 0.5) == ["its score is 0.9", "why"]
