"""A table is answered in a stream, in parts that a kill cannot harm, and what is done is not done again."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.serving.conftest import mixed_answer, mixed_bundle, regression_bundle

from modelyard._kit.errors import Busy, DataError, ModelError, NotFound, UserError
from modelyard.inference import Bundle
from modelyard.pipeline.scoring import Rows, Scored, open_rows, score, stream
from modelyard.pipeline.scoring.parts import kind_of


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelyard.pipeline.scoring.streaming._LEAST_ROWS", 16)
    monkeypatch.setattr("modelyard.pipeline.scoring.streaming._MOST_ROWS", 16)


def people(count: int, first: int = 0) -> pl.DataFrame:
    rows = range(first, first + count)
    return pl.DataFrame(
        {
            "id": [f"{n:04}" for n in rows],
            "age": [20 + n % 60 for n in rows],
            "city": [("paris", "rome", None)[n % 3] for n in rows],
            "income": [None if n % 7 == 0 else float(n % 5000) for n in rows],
        }
    )


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return mixed_bundle().bundle()


def opened(name: str | Path, bundle: Bundle) -> Rows:
    return open_rows(str(name), bundle.signature)


def done(name: str | Path, bundle: Bundle, output: str = "out.parquet", observe: Any = None) -> Scored:
    told = observe or (lambda done, of: None)
    return score(opened(name, bundle), bundle, Path(output.rstrip("/")), kind_of(output), workers=2, observe=told)


def read(output: str) -> pl.DataFrame:
    if output.endswith("/"):
        return pl.read_parquet(f"{output}*.parquet")
    readers: dict[str, Callable[..., pl.DataFrame]] = {".csv": pl.read_csv, ".parquet": pl.read_parquet}
    reader = readers.get(Path(output).suffix, pl.read_ndjson)
    return reader(output, schema_overrides={"id": pl.String}) if output.endswith(".csv") else reader(output)


def test_every_row_is_answered_beside_its_own(bundle: Bundle) -> None:
    people(100).write_parquet("in.parquet")
    made = done("in.parquet", bundle)
    rows = read("out.parquet")
    assert (made.rows, made.resumed, rows.height) == (100, 0, 100)
    assert rows.drop("prediction", "probability.no", "probability.yes").equals(people(100))
    expected = [mixed_answer(r["age"], r["income"], r["city"]) for r in people(100).to_dicts()]
    np.testing.assert_allclose(rows["probability.yes"].to_numpy(), expected, atol=1e-6)
    assert rows["prediction"].to_list() == ["yes" if p >= 0.5 else "no" for p in expected]


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet", "out/"])
@pytest.mark.parametrize("given", ["in.csv", "in.jsonl", "in.parquet"])
def test_each_form_goes_in_and_out(bundle: Bundle, given: str, output: str) -> None:
    frame = people(50)
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[given.partition(".")[2]](
        given
    )
    assert done(given, bundle, output).rows == 50
    assert read(output).select("id", "age", "income").equals(frame.select("id", "age", "income"))
    assert sorted(p.name for p in Path().iterdir() if p.name != ".modelyard") == sorted([given, output.rstrip("/")])


@pytest.mark.parametrize("count", [0, 1, 16, 17, 32])
def test_no_row_is_lost_at_the_edges_of_parts(bundle: Bundle, count: int) -> None:
    people(count).write_parquet("in.parquet")
    assert done("in.parquet", bundle, "out.csv").rows == count
    assert read("out.csv")["id"].to_list() == people(count)["id"].to_list()


def test_a_folder_is_one_table(bundle: Bundle) -> None:
    Path("in").mkdir()
    people(20).write_csv("in/a.csv")
    people(20, 20).write_parquet("in/b.parquet")
    people(5, 40).select("income", "id", "age", "city").write_csv("in/c.csv")
    assert done("in", bundle).rows == 45
    assert read("out.parquet")["age"].to_list() == people(45)["age"].to_list()


def test_files_of_a_folder_have_the_same_columns(bundle: Bundle) -> None:
    Path("in").mkdir()
    people(2).write_csv("in/a.csv")
    people(2).drop("id").write_csv("in/b.csv")
    with pytest.raises(DataError, match="one has no `id`") as caught:
        done("in", bundle)
    assert caught.value.code == "predict-columns-differ"


def test_a_version_of_a_delta_table(bundle: Bundle) -> None:
    people(20).write_delta("table")
    people(7, 20).write_delta("table", mode="append")
    assert done("table@0", bundle, "old.parquet").rows == 20
    assert done("table", bundle).rows == 27
    with pytest.raises(DataError, match="table@9"):
        done("table@9", bundle)


def test_rows_of_a_regression(bundle: Bundle) -> None:
    hours = regression_bundle().bundle()
    pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, None]}).write_parquet("in.parquet")
    done("in.parquet", hours)
    assert read("out.parquet")["prediction"].to_list()[0] == 5.0


class Killed(BaseException):
    """Ends an attempt at a place that the test chooses."""


def cut_off(name: str, bundle: Bundle, output: str, parts: int) -> None:
    def observe(done: int, of: int) -> None:
        if done >= 16 * parts:
            raise Killed

    with pytest.raises(Killed):
        done(name, bundle, output, observe)


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet", "out/"])
@pytest.mark.parametrize("given", ["in.csv", "in.parquet", "in"])
def test_an_attempt_goes_on_where_one_before_it_ended(bundle: Bundle, given: str, output: str) -> None:
    frame = people(100)
    if given == "in":
        Path("in").mkdir()
        frame[:37].write_csv("in/a.csv")
        frame[37:].write_csv("in/b.csv")
    else:
        frame.write_csv(given) if given.endswith("csv") else frame.write_parquet(given)
    whole = done(given, bundle, f"whole{output[3:]}")
    cut_off(given, bundle, output, parts=3)
    assert not Path(output).exists()
    # What was being written when the process died is no part.
    folder = Path(f".{output.rstrip('/')}.scoring")
    (folder / ".part-00003").write_bytes(b"half")
    went_on = done(given, bundle, output)
    assert (went_on.resumed, went_on.rows, went_on.why) == (48, 100, "")
    assert went_on.digest == whole.digest
    assert not folder.exists()


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_parts_after_a_missing_one_do_not_count(bundle: Bundle, gone: int) -> None:
    people(100).write_parquet("in.parquet")
    cut_off("in.parquet", bundle, "out.csv", parts=3)
    Path(f".out.csv.scoring/part-{gone:05}-16.csv").unlink()
    assert done("in.parquet", bundle, "out.csv").resumed == 16 * gone
    assert read("out.csv")["id"].to_list() == people(100)["id"].to_list()


def test_all_parts_there_and_only_the_output_missing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    people(40).write_parquet("in.parquet")
    with monkeypatch.context() as patch:
        patch.setattr("modelyard.pipeline.scoring.parts._join", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            done("in.parquet", bundle)
    made = done("in.parquet", bundle)
    assert (made.resumed, made.rows) == (40, 40)


def test_a_folder_that_is_whole_is_not_made_again(bundle: Bundle) -> None:
    people(40).write_parquet("in.parquet")
    first, again = done("in.parquet", bundle, "out/"), done("in.parquet", bundle, "out/")
    assert (first.resumed, again.resumed, again.rows, again.there) == (0, 40, 40, True)
    assert again.digest == first.digest
    people(41).write_parquet("in.parquet")
    assert done("in.parquet", bundle, "out/").rows == 41
    assert read("out/").height == 41


@pytest.mark.parametrize("changed", ["rows", "model"])
def test_other_rows_or_another_model_begin_anew_and_say_so(bundle: Bundle, changed: str) -> None:
    people(100).write_parquet("in.parquet")
    cut_off("in.parquet", bundle, "out.csv", parts=2)
    other = bundle
    if changed == "rows":
        people(100, 1).write_parquet("in.parquet")
    else:
        draft = mixed_bundle("other")
        other = draft.bundle()
    made = done("in.parquet", other, "out.csv")
    assert (made.resumed, made.rows, made.why) == (0, 100, f"the {changed} changed")
    assert read("out.csv")["id"][0] == ("0001" if changed == "rows" else "0000")


def test_two_at_once_write_no_output_together(bundle: Bundle) -> None:
    people(40).write_parquet("in.parquet")
    found = []

    def observe(done_rows: int, of: int) -> None:
        with pytest.raises(Busy) as caught:
            done("in.parquet", bundle)
        found.append((caught.value.code, caught.value.problem.message))

    assert done("in.parquet", bundle, observe=observe).rows == 40
    assert set(found) == {("predict-running", "another process writes `out.parquet`")}


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ("in.csv", "in.csv"),
        ("in.csv", "link.csv"),
        ("link.csv", "in.csv"),
        ("in.csv", "hard.csv"),
        ("in", "in/out.csv"),
    ],
)
def test_what_is_read_is_never_written(bundle: Bundle, given: str, output: str) -> None:
    Path("in").mkdir()
    for name in ("in.csv", "in/in.csv"):
        people(20).write_csv(name)
    Path("link.csv").symlink_to("in.csv")
    os.link("in.csv", "hard.csv")
    before = Path("in.csv").read_bytes()
    with pytest.raises(UserError, match="the rows themselves") as caught:
        done(given, bundle, output)
    assert caught.value.code == "predict-output"
    assert Path("in.csv").read_bytes() == before
    assert {p.name for p in Path().iterdir()} - {".modelyard"} == {"in", "in.csv", "link.csv", "hard.csv"}
    assert [p.name for p in Path("in").iterdir()] == ["in.csv"]


def test_an_output_folder_that_holds_the_rows_is_not_replaced(bundle: Bundle) -> None:
    people(20).write_parquet("in.parquet")
    done("in.parquet", bundle, "out/")
    part = next(Path("out").glob("part-*"))
    with pytest.raises(UserError, match="the rows themselves"):
        done(part, bundle, "out/")


def test_a_folder_that_is_not_there_is_not_made(bundle: Bundle) -> None:
    people(20).write_csv("in.csv")
    Path("answers").mkdir()
    with pytest.raises(UserError, match="there is no folder `answer`; did you mean `answers`") as caught:
        done("in.csv", bundle, "answer/out.csv")
    assert caught.value.code == "output-folder"
    assert not Path("answer").exists()


def test_a_bad_row_leaves_nothing_behind(bundle: Bundle) -> None:
    text = people(60).write_csv().replace("0050,70,", "0050,thirty,")
    Path("in.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        done("in.csv", bundle)
    assert str(caught.value.problem.where) == "in.csv:52"
    assert caught.value.problem.message == "`age` is `thirty`, which the model cannot take"
    assert [p.name for p in Path().iterdir() if p.name != ".modelyard"] == ["in.csv"]


@pytest.mark.parametrize("given", ["in.csv", "in.jsonl", "in.parquet"])
@pytest.mark.parametrize("left", [40, 32])
def test_a_table_that_ends_early_is_never_taken_for_whole(bundle: Bundle, given: str, left: int) -> None:
    def write(frame: pl.DataFrame) -> None:
        {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[given[3:]](given)

    write(people(100))
    rows = opened(given, bundle)
    write(people(left))
    with pytest.raises(DataError, match=f"has 100 rows, of which {left} came") as caught:
        score(rows, bundle, Path("out.csv"), "csv", workers=2, observe=lambda done, of: None)
    assert caught.value.code == "predict-rows-lost"
    assert [p.name for p in Path().iterdir() if p.name != ".modelyard"] == [given]
    with pytest.raises(DataError, match="of which"):
        list(stream(rows, bundle, workers=2))


def test_a_file_that_ends_early_inside_a_folder_is_noticed(bundle: Bundle) -> None:
    Path("in").mkdir()
    for name in ("a", "b"):
        people(40).write_csv(f"in/{name}.csv")
    rows = opened("in", bundle)
    people(24).write_csv("in/a.csv")
    with pytest.raises(DataError, match=r"a\.csv` has 40 rows, of which 24 came"):
        list(stream(rows, bundle, workers=2))


@pytest.mark.parametrize(
    "text", ['{"age": 1}\n\n{"age": 2}\n', '{"age": 1}\n{"age": 2}', '{"age": 1}\r\n{"age": 2}\r\n', ""]
)
def test_lines_of_json_are_counted_as_they_are_read(bundle: Bundle, text: str) -> None:
    Path("in.jsonl").write_text(text.replace("}", ', "city": "rome", "income": 3.5}'))
    if not text:
        with pytest.raises(DataError):
            opened("in.jsonl", bundle)
        return
    rows = opened("in.jsonl", bundle)
    assert rows.count == sum(f.height for f in rows.read(0, 10)) == 2


def test_columns_are_looked_at_before_any_row(bundle: Bundle) -> None:
    people(5).drop("city").write_csv("in.csv")
    with pytest.raises(ModelError, match="`city`"):
        done("in.csv", bundle)
    people(5).with_columns(prediction=1).write_csv("in.csv")
    with pytest.raises(DataError, match="a column `prediction` already"):
        done("in.csv", bundle)


def test_a_full_disk_keeps_what_is_whole(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    people(100).write_parquet("in.parquet")
    real, count = os.fsync, []

    def full(fd: int) -> None:
        count.append(fd)
        # The key, and the three parts that are under way before the first is taken.
        if len(count) > 4:
            raise OSError(28, "No space left on device")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="no space left") as caught:
            done("in.parquet", bundle, "out.csv")
    assert caught.value.code == "disk-full"
    assert not Path("out.csv").exists()
    assert not list(Path(".out.csv.scoring").glob(".part-*"))
    assert done("in.parquet", bundle, "out.csv").resumed >= 16


@pytest.mark.parametrize("output", ["out.csv", "out/"])
@pytest.mark.parametrize("space", [0, 1])
def test_a_disk_that_is_full_at_once_leaves_nothing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, space: int, output: str
) -> None:
    """Neither the key alone nor an empty folder is anything to go on with."""
    people(100).write_parquet("in.parquet")
    before, real, count = sorted(Path().iterdir()), os.fsync, []

    def full(fd: int) -> None:
        count.append(fd)
        if len(count) > space:
            raise OSError(28, "No space left on device")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="no space left"):
            done("in.parquet", bundle, output)
    assert sorted(Path().iterdir()) == before
    assert done("in.parquet", bundle, output).rows == 100


def test_parts_that_an_earlier_attempt_has_left_stay_on_a_full_disk(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(100).write_parquet("in.parquet")
    real, space = os.fsync, [5]

    def full(fd: int) -> None:
        space[0] -= 1
        if space[0] < 0:
            raise OSError(28, "No space left on device")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="no space left"):
            done("in.parquet", bundle, "out.csv")
        kept = sorted(Path(".out.csv.scoring").iterdir())
        assert len(kept) > 1
        with pytest.raises(UserError, match="no space left"):
            done("in.parquet", bundle, "out.csv")
        assert sorted(Path(".out.csv.scoring").iterdir()) == kept
    assert done("in.parquet", bundle, "out.csv").resumed >= 16


def test_what_is_no_output_or_no_table_is_said(bundle: Bundle) -> None:
    for wrong in ("out", "out.xlsx"):
        with pytest.raises(UserError, match="no folder/"):
            kind_of(wrong)
    Path("mine").mkdir()
    people(1).write_csv("in.csv")
    with pytest.raises(UserError, match="holds no answers"):
        done("in.csv", bundle, "mine/")
    with pytest.raises(NotFound, match=r"in\.cvs"):
        done("in.cvs", bundle)


def test_a_stream_keeps_nothing(bundle: Bundle) -> None:
    people(40).write_csv("in.csv")
    frames = list(stream(opened("in.csv", bundle), bundle, workers=2))
    assert [f.height for f in frames] == [16, 16, 8]
    assert pl.concat(frames)["id"].to_list() == people(40)["id"].to_list()


@pytest.mark.parametrize("output", ["out.csv", "out/"])
def test_an_output_behind_a_link_is_written_where_the_link_leads(bundle: Bundle, output: str, tmp_path: Path) -> None:
    people(50).write_parquet("in.parquet")
    name = output.rstrip("/")
    (tmp_path / "real").mkdir()
    (tmp_path / name).symlink_to(f"real/{name}")
    for _ in range(2):
        assert done("in.parquet", bundle, output).rows == 50
        assert (tmp_path / name).is_symlink()
        assert read(f"real/{output}").height == 50
    assert [p.name for p in (tmp_path / "real").iterdir()] == [name]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["in.parquet", "real", name])


def test_an_output_that_is_a_pipe_gets_the_rows_and_stays(bundle: Bundle, tmp_path: Path) -> None:
    people(50).write_parquet("in.parquet")
    os.mkfifo("pipe.csv")
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit((tmp_path / "pipe.csv").read_bytes)
        done("in.parquet", bundle, "pipe.csv")
        assert got.result(30).count(b"\n") == 51
    assert (tmp_path / "pipe.csv").is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.parquet", "pipe.csv"]
