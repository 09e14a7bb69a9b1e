"""What a failure is called, and what is said to have caused it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pipeline.history import History

from modelyard._kit.errors import DataError, MissingExtra
from modelyard.pipeline.causes import Before, CauseKind, cause_of, likely
from modelyard.pipeline.changes import Change
from modelyard.pipeline.execute import Failure
from modelyard.records import Step

STEP = Step(name="train", verb="steps.py:train")


def failure(error: BaseException) -> Failure:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - any
        return Failure.of(STEP, caught)


def of_polars() -> BaseException:
    import polars as pl

    try:
        pl.DataFrame({"a": [1]}).select("b")
    except pl.exceptions.PolarsError as error:
        return error
    raise AssertionError


def caused(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "network"),
        (OSError(-2, "Name or service not known"), "network"),
        (RuntimeError("HTTPSConnectionPool(host='x'): Max retries exceeded with url: /"), "network"),
        (OSError(28, "No space left on device"), "disk"),
        (RuntimeError("parquet: No space left on device (os error 28)"), "disk"),
        (MemoryError(), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "memory"),
        (PermissionError(13, "Permission denied", "/data"), "permission"),
        (TimeoutError("timed out"), "time"),
        (ModuleNotFoundError("No module named 'xgboost'"), "environment"),
        (OSError("libomp.so: cannot open shared object file"), "environment"),
        (MissingExtra("it needs torch", extra="torch"), "environment"),
        (DataError("data-schema-changed", "columns vanished"), "data"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "data"),
        (KeyError("age"), "data"),
        (TypeError("unsupported operand"), "code"),
        (NameError("name 'nothing' is not defined"), "code"),
        (caused(RuntimeError("cannot fit"), KeyError("age")), "data"),
        (caused(ValueError("bad answer"), ConnectionResetError(104, "Connection reset by peer")), "network"),
    ],
    ids=repr,
)
def test_an_error_has_a_class(error: BaseException, kind: CauseKind) -> None:
    cause = likely(failure(error), {}, None)
    assert cause.kind == kind
    assert "has never succeeded" in cause.says
    assert cause.next


def test_errors_of_polars_are_of_the_data() -> None:
    cause = likely(failure(of_polars()), {}, None)
    assert cause.kind == "data"
    assert "`b`" in cause.says


@pytest.mark.parametrize(
    ("code", "kind"),
    [("out-of-memory", "memory"), ("step-timeout", "time"), ("worker-died", "environment"), ("check-failed", "check")],
)
def test_what_ended_a_step_from_outside_has_a_class(code: str, kind: CauseKind) -> None:
    assert likely(Failure(code=code, message="m", hint="do this"), {}, None).kind == kind
    assert likely(Failure(code=code, message="m", hint="do this"), {}, None).next == "do this"


def test_a_hint_of_its_own_is_what_to_do_and_one_that_fits_any_error_is_not() -> None:
    told = Failure(code="step-failed", message="step `a` raised OSError: [Errno 13]", hint="give it `network: true`")
    assert likely(told, {}, None).next == "give it `network: true`"
    assert "--debug" not in likely(failure(KeyError("age")), {}, None).next


def earlier(*changes: Change) -> Before:
    return Before(run="run-1", time=0.0, changes=changes)


CODE = Change(kind="code", step="train", what="`features.py` changed in `build`")
DATA = Change(kind="data", step="load.people", what="load.people.table: 9 → 8 rows, column `age` gone")
LIBRARY = Change(kind="environment", step="load.people", what="polars 2.1 -> 2.2")


def test_what_changed_since_decides_between_code_and_data() -> None:
    missing = failure(KeyError("age"))
    assert likely(missing, {}, earlier(CODE)).kind == "code"
    assert likely(missing, {}, earlier(DATA)).kind == "data"
    assert likely(missing, {}, earlier(LIBRARY)).kind == "environment"
    assert likely(missing, {}, earlier(CODE, DATA)).kind == "data"
    assert likely(failure(ModuleNotFoundError("No module named 'hepers'")), {}, earlier(CODE)).kind == "code"
    assert likely(failure(ConnectionRefusedError()), {}, earlier(CODE)).kind == "network"


def test_the_sentence_says_when_it_worked_and_what_changed() -> None:
    cause = likely(failure(KeyError("age")), {}, earlier(DATA))
    assert cause.says == (
        "the data are not what the step can work with (`age`); "
        "the same step succeeded in run-1 (1970-01-01 00:00:00Z), "
        "since then the data: load.people.table: 9 → 8 rows, column `age` gone"
    )
    assert cause.since == ("the data: load.people.table: 9 → 8 rows, column `age` gone",)
    assert cause.run == "run-1"
    assert "nothing that is recorded changed" in likely(failure(KeyError("age")), {}, earlier()).says
    by_digest = likely(failure(KeyError("age")), {"code": "b"}, Before(run="run-1", time=0.0, made_of={"code": "a"}))
    assert by_digest.since == ("code changed",)


def test_the_cause_is_read_from_the_runs(tmp_path: Path) -> None:
    history = History(tmp_path)
    good = history.run()
    history.edit("features.py", '"price", "good"', '"price"')
    bad = history.run()
    with history.store() as store:
        cause = cause_of(store, bad, "score")
        assert cause_of(store, good, "score") is None
    assert cause is not None
    assert cause.kind == "code"
    assert cause.run == good.id
    assert "since then the code: `features.py` changed in `build`" in cause.says
    assert "`good`" in cause.says


def test_a_source_that_lost_a_column_is_named_with_its_file(tmp_path: Path) -> None:
    history = History(tmp_path)
    good = history.run()
    history.write("data/two.csv", "id\n100\n")
    bad = history.run()
    with history.store() as store:
        cause = cause_of(store, bad, "load.orders")
    assert cause is not None
    assert (cause.kind, cause.run) == ("data", good.id)
    assert cause.since == ("the data: new or changed: `data/two.csv`",)
