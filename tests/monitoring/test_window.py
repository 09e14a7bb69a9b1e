from __future__ import annotations

import sqlite3
import threading

import pytest

from modelyard._kit.errors import DataError, NotFound, UserError
from modelyard._kit.places import log_path
from modelyard.monitoring.truth import join_truths, read_truths
from modelyard.monitoring.window import read_window

MODEL = "m" * 64


def test_the_newest_requests_come_as_columns_oldest_first(log, requests):
    rows, _ = requests(0, 30)
    window = read_window(log(rows), last=10)
    assert window.rows == 10
    assert window.ids == [f"r{i}" for i in range(20, 30)]
    assert window.inputs["age"] == [inputs["age"] for inputs, _ in rows[20:]]
    assert window.outputs == [output for _, output in rows[20:]]
    assert (window.begins, window.ends) == (1200.0, 1290.0)
    assert window.describe() == {"rows": 10, "held": 0, "tests": 0, "from": 1200.0, "to": 1290.0}
    assert window.endpoint == "loans"


def test_a_window_may_begin_at_a_time(log, requests):
    path = log(requests(0, 30)[0])
    assert read_window(path, since=1250.0).ids == [f"r{i}" for i in range(25, 30)]
    assert read_window(path, since=1250.0, last=2).ids == ["r28", "r29"]
    assert read_window(path).rows == 30


def test_requests_of_another_model_are_not_in_it(log, requests):
    log(requests(0, 5)[0], model="o" * 64)
    path = log(requests(1, 7)[0])
    log(requests(2, 3)[0], model="o" * 64)
    assert read_window(path, model=MODEL).ids == [f"r{i}" for i in range(5, 12)]
    assert read_window(path).rows == 15
    assert read_window(path, model="x" * 64).rows == 0


def test_the_last_outcome_of_an_id_counts(log, requests):
    path = log(requests(0, 3)[0])
    joined = join_truths(path, [("r0", "yes"), ("r1", "no"), ("r1", "yes")])
    # Requests are counted, not lines.
    assert (joined.joined, joined.known, joined.replaced) == (2, 0, 1)
    assert read_window(path).truths == ["yes", "yes", None]
    # Also where the last line says what stands there already, and another line said otherwise before it.
    join_truths(path, [("r0", "no"), ("r0", "yes")])
    assert read_window(path).truths == ["yes", "yes", None]


def test_requests_of_a_load_test_are_left_out_and_counted(log, requests):
    log(requests(0, 5)[0])
    log(requests(9, 40, shift=3.0)[0], prefix="loadtest-r")
    path = log(requests(1, 3)[0])
    window = read_window(path)
    assert (window.rows, window.describe()["tests"]) == (8, 40)
    assert not [name for name in window.ids if name.startswith("loadtest-")]
    # As many requests of callers as were asked for, however many others came between them.
    assert read_window(path, last=6).rows == 6
    assert read_window(path, last=2).tests == 0


def test_a_row_without_its_content_is_left_out_and_counted(log, requests):
    rows, _ = requests(0, 5)
    window = read_window(log([*rows, ({}, {})]))
    assert (window.rows, window.unreadable) == (5, 1)


def test_a_value_that_a_request_did_not_have_is_none(log):
    window = read_window(log([({"a": 1}, {"prediction": 1.0}), ({"b": "x"}, {"prediction": 2.0})]))
    assert window.inputs == {"a": [1, None], "b": [None, "x"]}


def test_a_log_that_is_missing_or_broken_is_said(tmp_path):
    path = log_path(tmp_path, "loans")
    with pytest.raises(NotFound) as missing:
        read_window(path)
    assert missing.value.code == "requests-not-found"
    assert not path.exists()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 100)
    with pytest.raises(UserError) as broken:
        read_window(path)
    assert broken.value.code == "requests-unreadable"


def test_reading_does_not_wait_for_a_writer(log, requests):
    path = log(requests(0, 10)[0])
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM blocks")
    seen = []
    reader = threading.Thread(target=lambda: seen.append(read_window(path).ms[0]))
    reader.start()
    reader.join(5)
    assert seen == [0.5]
    writer.execute("ROLLBACK")
    writer.close()


def test_outcomes_are_joined_by_id_once(log, requests, tmp_path):
    path = log(requests(0, 10)[0])
    outcomes = tmp_path / "outcomes.csv"
    outcomes.write_text("id,truth,remark\nr1,yes,late\nr3,no,\nr4,,unknown\nnobody,yes,\n")
    assert join_truths(path, read_truths(outcomes)) == type(join_truths(path, []))(
        joined=2, known=0, replaced=0, strange=1
    )
    again = join_truths(path, read_truths(outcomes))
    assert (again.joined, again.known, again.replaced, again.strange) == (0, 2, 0, 1)
    outcomes.write_text("id,truth\nr1,no\nr3,no\nr5,yes\nr5,yes\nnobody,no\nnobody,no\n")
    other = join_truths(path, read_truths(outcomes))
    assert (other.joined, other.known, other.replaced, other.strange) == (1, 2, 1, 1)
    assert read_window(path).truths[:6] == [None, "no", None, "no", None, "yes"]


def test_outcomes_without_their_columns_are_refused(log, requests, tmp_path):
    path = log(requests(0, 3)[0])
    outcomes = tmp_path / "outcomes.csv"
    outcomes.write_text("request;outcome\nr1;yes\n")
    with pytest.raises(DataError) as caught:
        join_truths(path, read_truths(outcomes))
    assert caught.value.code == "truth-columns"
    with pytest.raises(NotFound):
        join_truths(tmp_path / "none.db", [("r1", "yes")])
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("written", "line", "says"),
    [
        ("id,truth\nr1,ja\nr2,schön\n".encode("latin-1"), 3, "0xf6"),
        ("id,wählt,truth\nr1,a,b\n".encode("latin-1"), 1, "0xe4"),
        ("id,truth\nr1,yes\n".encode("utf-16"), 1, "0xff"),
        (b'id,truth\nr1,"yes\nr2,no\n', 3, "unexpected end"),
        (b'id,truth\nr1,"y"es\n', 2, "expected"),
        (b"id,truth\nr1," + b"x" * 200_000 + b"\n", 2, "field"),
    ],
)
def test_outcomes_that_cannot_be_read_are_refused_with_their_line(tmp_path, written, line, says):
    outcomes = tmp_path / "outcomes.csv"
    outcomes.write_bytes(written)
    with pytest.raises(DataError, match=says) as caught:
        list(read_truths(outcomes))
    assert caught.value.code == "truth-unreadable"
    assert caught.value.problem.where == f"{outcomes}:{line}"


@pytest.mark.parametrize(("wrong", "says"), [("yess", "did you mean `yes`"), ("banana", "`no`, `yes`"), ("1", "`1`")])
def test_an_outcome_that_no_answer_can_be_is_refused_and_nothing_is_joined(
    log, requests, tmp_path, signature, wrong, says
):
    path = log(requests(0, 3)[0])
    join_truths(path, [("r0", "yes")])
    outcomes = tmp_path / "outcomes.csv"
    outcomes.write_text(f"id,truth\nr0,no\nr1,yes\nr2,{wrong}\n")
    with pytest.raises(DataError) as caught:
        join_truths(path, read_truths(outcomes, signature.problem))
    assert caught.value.code == "feedback-truth"
    assert caught.value.problem.where == f"{outcomes}:4"
    assert says in str(caught.value)
    assert read_window(path).truths == ["yes", None, None]


def test_outcomes_that_are_not_there(tmp_path):
    with pytest.raises(NotFound):
        list(read_truths(tmp_path / "none.csv"))
    with pytest.raises(DataError, match="truth-unreadable"):
        list(read_truths(tmp_path))


def test_outcomes_with_a_byte_order_mark_and_line_ends_in_cells(tmp_path):
    outcomes = tmp_path / "outcomes.csv"
    outcomes.write_bytes('\ufeffid,note,truth\r\nr1,"a\r\nb",yes\r\nr2,,no\r\n'.encode())
    assert list(read_truths(outcomes)) == [("r1", "yes"), ("r2", "no")]
