"""The real files, with the traps they are known for."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from modelyard._kit.errors import DataError
from modelyard.data import steps


def take(project, shared_data: Path, *names: str) -> None:
    for name in names:
        project.file(f"data/{Path(name).name}", (shared_data / name).read_bytes())


ADULT = {
    "age": {"type": "int", "range": [17, 90], "nullable": False},
    "education-num": {"type": "int", "range": [1, 16]},
    "sex": {"allowed": ["Male", "Female"]},
    "Y": {"allowed": ["<=50K", ">50K"], "nullable": False},
}


def test_adult(project, shared_data: Path) -> None:
    take(project, shared_data, "adult/adult.data")
    project.source |= {"delimiter": ", ", "null_values": ["?"]}
    project.types = {"age": "int", "education-num": "int"}
    version = project.load()
    good, bad, results = project.hold(version, ADULT, bad_rows="stop")
    assert (good.height, bad.height) == (32_561, 0)
    assert sum(good[c].null_count() for c in good.columns) == 4262
    assert good.schema["fnlwgt"] == pl.Int64
    assert good["Y"].value_counts(sort=True).rows() == [("<=50K", 24_720), (">50K", 7841)]
    assert {r.status for r in results.values()} == {"passed"}
    train, test, problem = steps.split(table=good, target="Y")
    assert (train.height + test.height, problem.positive) == (32_561, ">50K")
    share = [side.filter(pl.col("Y") == ">50K").height / side.height for side in (train, test)]
    assert share[0] == pytest.approx(share[1], abs=1e-3)


def test_adult_test_labels_with_their_full_stop_are_all_set_aside(project, shared_data: Path) -> None:
    take(project, shared_data, "adult/adult.data")
    project.source |= {"delimiter": ", ", "null_values": ["?"]}
    first = project.load()
    take(project, shared_data, "adult/adult.test")
    good, bad, results = project.hold(project.load(first), ADULT)
    assert (good.height, bad.height) == (32_561, 16_281)
    assert results["Y.allowed"].evidence.value == 16_281
    assert set(bad["Y"]) == {"<=50K.", ">50K."}
    assert bad["_file"].unique().to_list() == ["data/adult.test"]
    assert bad["_line"].to_list() == list(range(2, 16_283))
    (project.root / "data/adult.data").unlink()
    with pytest.raises(DataError) as caught:
        project.hold(project.load(), ADULT)
    assert caught.value.code == "data-all-rows-bad"


def test_bikes_in_monthly_arrivals_and_by_time(project, shared_data: Path) -> None:
    lines = (shared_data / "bike-sharing/hour.csv").read_text().splitlines(keepends=True)
    months: dict[str, list[str]] = {}
    for line in lines[1:]:
        months.setdefault(line.split(",")[1][:7], []).append(line)
    assert len(months) == 24
    project.source |= {"key": ["instant"], "cursor": "dteday"}
    version = None
    for month in sorted(months)[:3]:
        project.file(f"data/{month}.csv", lines[0] + "".join(months[month]))
        load = project.read(version)
        assert len(load.parts) == 1
        version = project.load(version)
    for month in sorted(months)[3:]:
        project.file(f"data/{month}.csv", lines[0] + "".join(months[month]))
    version = project.load(version)
    assert len(version.parts) == 24
    good, bad, _ = project.hold(version, {"dteday": {"type": "date"}, "hum": {"range": [0, 1]}})
    assert (good.height, bad.height) == (17_379, 0)
    train, test, problem = steps.split(
        table=good, target="cnt", by="time", column="dteday", test=0.2, keys=[["instant"]]
    )
    assert problem.task == "regression"
    assert train["dteday"].max() < test["dteday"].min()
    assert abs(test.height / 17_379 - 0.2) < 0.001


def test_sms_has_no_header_a_byte_order_mark_and_quotes_that_are_text(project, shared_data: Path) -> None:
    take(project, shared_data, "sms-spam/SMSSpamCollection.tsv")
    project.source |= {"columns": ["label", "text"]}
    good, bad, _ = project.hold(project.load(), {"label": {"allowed": ["ham", "spam"]}})
    assert (good.height, bad.height) == (5574, 0)
    assert dict(good["label"].value_counts().rows()) == {"ham": 4827, "spam": 747}


def test_compas_is_read_whole_with_its_types(project, shared_data: Path) -> None:
    take(project, shared_data, "compas/compas-scores-two-years-deidentified.csv")
    version = project.load()
    frame = project.rows(version)
    assert frame.height == 7214
    assert frame["two_year_recid"].mean() == pytest.approx(0.4507, abs=1e-4)
    reference = pl.read_csv(
        shared_data / "compas/compas-scores-two-years-deidentified.csv", infer_schema_length=None, null_values=[""]
    )
    for name in reference.columns:
        if reference.schema[name].is_numeric():
            assert frame[name].cast(pl.Float64).equals(reference[name].cast(pl.Float64), null_equal=True), name
