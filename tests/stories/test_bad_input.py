"""Everything a user can get wrong: one clear message, the right exit code, nothing half-written, no trace."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import modelyard
from modelyard.cli.main import main
from tests.stories.conftest import SPEC, samples, write_csv

Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run_in(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Callable[[Path], tuple[int, str]]:
    """Return a function that types `modelyard run` in a folder and returns exit code and what was said."""

    def run(folder: Path) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        capsys.readouterr()
        code = main(["run"])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return code, said

    return run


def refused(answer: tuple[int, str], code: str, *words: str) -> None:
    """Assert exit code 2, this error code once, and these words."""
    exit_code, said = answer
    assert exit_code == 2, said
    assert re.findall(r"error\[([a-z0-9-]+)\]", said) == [code], said
    assert "hint:" in said
    for word in words:
        assert word in said, said


def made_by_a_function(folder: Path) -> Path:
    """Have a function make the columns, so that only a run can tell them."""
    spec = (folder / "modelyard.yaml").read_text()
    (folder / "modelyard.yaml").write_text(spec.replace("model:\n", "features: features.py:build\nmodel:\n", 1))
    (folder / "features.py").write_text("def build(tables):\n    return tables['samples']\n")
    return folder


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "spec-empty", ()),
        (b"project: [unclosed", "spec-not-yaml", ("modelyard.yaml:2",)),
        (b"project: x\n\tpurpose: y\n", "spec-tab", ("modelyard.yaml:2",)),
        (b"project: caf\xe9\n", "spec-not-utf8", ()),
        (b"- a\n- b\n", "spec-not-a-mapping", ()),
        (SPEC.replace("target: diagnosis", "targt: diagnosis").encode(), "spec-unknown-field", ("target",)),
        (SPEC.replace("trials: 1", "trials: often").encode(), "spec-wrong-type", ("trials",)),
        (SPEC.replace("data/*.csv", "dta/*.csv").encode(), "spec-missing-file", ("dta/*.csv",)),
    ],
    ids=["empty", "not-yaml", "tab", "not-utf8", "list", "unknown-field", "wrong-type", "missing-file"],
)
def test_a_wrong_file_is_answered_before_anything_is_written(
    make_project: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    content: bytes,
    code: str,
    words: tuple[str, ...],
) -> None:
    folder = make_project()
    (folder / "modelyard.yaml").write_bytes(content)
    monkeypatch.chdir(folder)
    assert main(["run"]) == 2
    said = capsys.readouterr().err
    assert f"error[{code}]" in said
    for word in words:
        assert word in said
    assert "Traceback" not in said
    assert not (folder / ".modelyard").exists()


def test_no_file_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run"]) == 2
    assert "modelyard init" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_all_mistakes_are_named_at_once(make_project: Make, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    text = SPEC.replace("trials: 1", "trials: often").replace("ethics:", "etics:").replace("metric: roc", "metric: rok")
    folder = make_project(spec=text)
    monkeypatch.chdir(folder)
    assert main(["check"]) == 2
    said = capsys.readouterr().err
    assert {"often", "etics", "rok_auc"} <= set(re.findall(r"\w+", said))
    assert [int(n) for n in re.findall(r"modelyard.yaml:(\d+)", said)] == sorted(
        int(n) for n in re.findall(r"modelyard.yaml:(\d+)", said)
    )


def test_the_target_is_not_in_the_data(make_project: Make, run_in: Callable[[Path], tuple[int, str]]) -> None:
    spec = SPEC.replace("target: diagnosis", "target: diagnose").replace("  positive: malignant\n", "")
    refused(run_in(make_project(spec=spec)), "data-target-missing", "diagnosis")


def test_a_column_that_a_check_compares_by_is_missed_before_anything_is_trained(
    make_project: Make, run_in: Callable[[Path], tuple[int, str]]
) -> None:
    folder = made_by_a_function(make_project(spec=SPEC.replace("factors: [grain]", "factors: [grian]")))
    refused(run_in(folder), "data-column-missing", "grian", "did you mean `grain`")
    store = modelyard.open_project(folder)
    assert not any(e.step.startswith("train.") for e in store.ledger.events())


def test_a_column_to_drop_that_is_none_is_missed_before_anything_is_trained(
    make_project: Make, run_in: Callable[[Path], tuple[int, str]]
) -> None:
    spec = SPEC.replace("  target: diagnosis\n", "  target: diagnosis\n  drop: [grain, worst_aera]\n")
    folder = made_by_a_function(make_project(spec=spec))
    line = next(n for n, text in enumerate((folder / "modelyard.yaml").read_text().splitlines(), 1) if "drop:" in text)
    refused(run_in(folder), "data-column-missing", f"modelyard.yaml:{line}", "did you mean `worst_area`")
    store = modelyard.open_project(folder)
    assert not any(e.step.startswith("train.") for e in store.ledger.events())


@pytest.mark.parametrize("by", ["features", "step"])
def test_a_column_to_drop_may_be_one_that_own_code_has_taken_away(
    make_project: Make, run_in: Callable[[Path], tuple[int, str]], by: str
) -> None:
    spec = SPEC.replace("  target: diagnosis\n", "  target: diagnosis\n  drop: [worst_area]\n")
    folder = make_project(spec=spec)
    if by == "features":
        made_by_a_function(folder)
        (folder / "features.py").write_text("def build(tables):\n    return tables['samples'].drop('worst_area')\n")
    else:
        step = "steps:\n  less: {function: own.py:less, inputs: {table: contract.samples}, feeds: samples}\n"
        (folder / "modelyard.yaml").write_text((folder / "modelyard.yaml").read_text() + step)
        (folder / "own.py").write_text("def less(table):\n    return table.drop('worst_area')\n")
    code, said = run_in(folder)
    assert "data-column-missing" not in said, said
    # A name that is in no table at all is still found.
    (folder / "modelyard.yaml").write_text(
        (folder / "modelyard.yaml").read_text().replace("[worst_area]", "[wurst_area]")
    )
    refused(run_in(folder), "data-column-missing", "wurst_area")
    assert code == 0, said


def test_one_class_only(make_project: Make, run_in: Callable[[Path], tuple[int, str]]) -> None:
    rows = [r for r in samples(0, 300) if r["diagnosis"] == "malignant"]
    refused(run_in(make_project(rows=rows)), "data-one-class", "malignant")


def test_all_rows_bad(make_project: Make, run_in: Callable[[Path], tuple[int, str]]) -> None:
    rows = [{**r, "diagnosis": "unknown"} for r in samples(0, 50)]
    refused(run_in(make_project(rows=rows)), "data-all-rows-bad")


def test_a_file_that_is_not_utf8(make_project: Make, run_in: Callable[[Path], tuple[int, str]]) -> None:
    folder = make_project()
    with (folder / "data" / "one.csv").open("ab") as file:
        file.write(b"2000,1,1,1,1,1,fine,mal\xefgnant\n")
    refused(run_in(folder), "data-not-utf8", "one.csv", "302")


def test_duplicate_keys_stop_when_bad_rows_stop(make_project: Make, run_in: Callable[[Path], tuple[int, str]]) -> None:
    rows = samples(0, 100)
    rows[50]["id"] = rows[10]["id"]
    spec = SPEC.replace("bad_rows: quarantine", "bad_rows: stop")
    refused(run_in(make_project(spec=spec, rows=rows)), "data-bad-rows", "1010", "quarantine")


def test_a_column_that_vanishes_in_the_second_arrival(ran: Path, run_in: Callable[[Path], tuple[int, str]]) -> None:
    write_csv(
        ran / "data" / "two.csv",
        [{k: v for k, v in r.items() if k != "worst_area"} for r in samples(300, 330)],
    )
    refused(run_in(ran), "data-column-vanished", "worst_area", "two.csv")
    store = modelyard.open_project(ran)
    assert store.ledger.verify() == []
    assert store.ledger.alias("tumours", "champion") is not None


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self/ns/user").exists(), reason="needs a read-only folder")
def test_a_read_only_folder(make_project: Make) -> None:
    folder = make_project()
    code = _in_namespace(folder, f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}")
    if code is None:
        pytest.skip("this machine does not allow a mount of its own")
    refused(code, "store-not-writable")


@pytest.mark.thorough
def test_a_read_only_copy_can_be_read_and_verified(ran: Path) -> None:
    mount = f"mount --bind {ran} {ran} && mount -o remount,bind,ro {ran}"
    for verb in ("runs", "show checks", "plan", "verify", "predict data/one.csv"):
        answer = _in_namespace(ran, mount, verb=verb)
        if answer is None:
            pytest.skip("this machine does not allow a mount of its own")
        assert answer[0] == 0, (verb, answer[1])


def test_a_full_disk_leaves_a_project_that_goes_on(make_project: Make) -> None:
    folder = make_project()
    answer = _in_namespace(
        folder,
        f"mkdir -p {folder}/.modelyard && mount -t tmpfs -o size=150k tmpfs {folder}/.modelyard",
    )
    if answer is None:
        pytest.skip("this machine does not allow a mount of its own")
    refused(answer, "disk-full")


def _in_namespace(folder: Path, mount: str, *, verb: str = "run") -> tuple[int, str] | None:
    """Run a verb in a mount namespace of its own after a mount; none where that is not allowed."""
    script = f"{mount} || exit 99; cd {folder} && exec {sys.executable} -m modelyard {verb}"
    command = ["unshare", "--mount", "--map-root-user", "/bin/sh", "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError:
        return None
    if done.returncode == 99 or "unshare" in done.stderr:
        return None
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_a_port_that_is_taken(ran: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "modelyard", "serve", "--port", str(port)],
            cwd=ran,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    refused((done.returncode, done.stderr), "port-taken", str(port))
    assert "Traceback" not in done.stderr


def test_an_unknown_verb_and_a_wrong_option(capsys: Capture) -> None:
    assert main(["rnu"]) == 2
    assert "did you mean `run`" in capsys.readouterr().err


def test_a_run_that_never_began_tells_nothing_of_earlier_ones(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(ran)
    with modelyard.open_project(ran).hold("run", who={"run": "run-other", "pid": os.getpid()}):
        assert main(["run"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error[store-held]")
    assert "champion" not in err
