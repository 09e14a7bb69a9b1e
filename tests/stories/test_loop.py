"""The loop as a user types it: run, again, new rows, a changed contract, a failed gate, verify, tampering."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import modelyard
from modelyard._kit.digest import digest_file
from modelyard.cli.main import main
from tests.stories.conftest import SPEC, samples, write_csv

Make = Callable[..., Path]


def type_(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Type a command in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "modelyard", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def runs(folder: Path) -> list[modelyard.Run]:
    store = modelyard.open_project(folder)
    found = [store.ledger.run(r.id) for r in store.ledger.runs()]
    store.close()
    return [run for run in found if run is not None]


@pytest.mark.thorough
def test_the_whole_loop(
    make_project: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project()
    monkeypatch.chdir(folder)

    # First run: everything runs, a champion and a card are there.
    assert main(["run"]) == 0
    first = runs(folder)[0]
    assert {s.status for s in first.steps} == {"succeeded"}
    assert (folder / "cards" / "tumours.html").is_file()

    # Nothing changed: everything is cached, the result is the same.
    assert main(["run"]) == 0
    again = runs(folder)[0]
    assert {s.status for s in again.steps} == {"cached"}
    assert again.result == first.result

    # A changed range that no row breaks: the contract and what is made of its results, nothing else.
    text = (folder / "modelyard.yaml").read_text()
    (folder / "modelyard.yaml").write_text(text.replace("range: [0, 100]", "range: [0, 99]"))
    assert main(["run"]) == 0
    ran = {s.name for s in runs(folder)[0].steps if s.status == "succeeded"}
    assert "contract.samples" in ran
    assert not {n for n in ran if n.startswith(("load.", "train.", "evaluate", "check.")) or n in ("split", "fit")}

    # A second arrival with a bad row: only the new file is read, the bad row is set aside with its reason.
    late = samples(300, 420)
    late[3]["mean_radius"] = "-1"
    write_csv(folder / "data" / "two.csv", late)
    assert main(["run"]) == 0
    newest = runs(folder)[0]
    assert len(newest["load.samples"]["parts"]) == 2
    assert newest["load.samples"]["parts"][0] == first["load.samples"]["parts"][0]
    assert newest["contract.samples#quarantine"]["rows"] == 1

    # Every claim holds when it is measured again; a rollback and its way back are recorded.
    capsys.readouterr()
    assert main(["verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    assert main(["rollback"]) == 0
    store = modelyard.open_project(folder)
    moves = [d.model.digest for d in store.ledger.aliases("tumours")]
    assert moves[-1] == moves[-3] != moves[-2]
    assert main(["run"]) == 0
    assert store.ledger.alias("tumours", "champion").model.digest == moves[-1]  # type: ignore[union-attr]

    # A changed number in the card, a changed byte in the bundle, an edited row: each is named.
    card = folder / "cards" / "tumours.md"
    store.close()
    number = f"{newest['check.roc_auc']['evidence']['value']:.4g}"
    assert number in card.read_text()
    card.write_text(card.read_text().replace(number, "0.9999", 1))
    assert main(["verify", "--card"]) == 1
    assert "0.9999" in capsys.readouterr().out

    address = newest["package"]["address"]
    model = next((folder / ".modelyard" / "blobs").rglob(f"*{address[4:]}*/model.onnx"))
    model.chmod(0o644)
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    assert main(["verify", "--bundle"]) == 1
    assert "model.onnx" in capsys.readouterr().out

    with sqlite3.connect(folder / ".modelyard" / "ledger.db") as db:
        db.execute("UPDATE events SET actor = 'user:somebody-else' WHERE seq = 5")
    db.close()
    assert main(["verify", "--ledger"]) == 1
    assert "event 5" in capsys.readouterr().out


@pytest.mark.thorough
def test_a_model_that_comes_back_is_champion_again_and_verify_holds_after_every_kind_of_run(
    make_project: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = SPEC.replace("candidates: [logistic, lightgbm]", "candidates: [logistic]").replace(
        "  - beats: {margin: -0.05}\n", ""
    )
    folder = make_project(spec=plain)
    monkeypatch.chdir(folder)

    def champion() -> str:
        now = modelyard.open_project(folder).ledger.alias("tumours", "champion")
        assert now is not None
        return now.model.digest

    assert main(["plan"]) == 0
    assert not (folder / ".modelyard").exists(), "a plan makes nothing"

    assert main(["run", "--json"]) == 0
    first = champion()
    assert main(["verify"]) == 0

    (folder / "modelyard.yaml").write_text(plain.replace("seed: 7", "seed: 8"))
    assert main(["run"]) == 0
    assert champion() != first
    (folder / "modelyard.yaml").write_text(plain)
    assert main(["run"]) == 0
    assert champion() == first, "all but its promotion was cached, and it is champion again"
    assert main(["run"]) == 0
    assert {s.status for s in runs(folder)[0].steps} == {"cached"}

    # A mistyped endpoint is not made by the way.
    capsys.readouterr()
    assert main(["promote", first[:12], "--endpoint", "tumuors"]) == 2
    assert "did you mean `tumours`" in capsys.readouterr().err

    # A refused run leaves the published card and its proof alone.
    (folder / "modelyard.yaml").write_text(plain.replace("at_least: 0.80", "at_least: 0.9999"))
    assert main(["run"]) == 1
    assert main(["verify"]) == 0

    # One byte of a table: its size is right, and nothing that reads the file would notice.
    table = runs(folder)[0]["split#train"]
    files = (folder / ".modelyard" / "tables" / table["name"]).glob("*.parquet")
    file = next(f for f in files if digest_file(f) in table["files"])
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(content))
    capsys.readouterr()
    assert main(["verify"]) == 1
    assert file.name in capsys.readouterr().out


@pytest.mark.thorough
def test_a_champion_that_cannot_answer_says_the_way_out(
    make_project: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.replace("candidates: [logistic, lightgbm]", "candidates: [logistic]")
    folder = make_project(spec=spec.replace("model:\n", "features: features.py:build\nmodel:\n"))
    (folder / "features.py").write_text("def build(tables):\n    return tables['samples']\n")
    monkeypatch.chdir(folder)
    assert main(["run"]) == 0
    (folder / "features.py").write_text("def build(tables):\n    return tables['samples'].drop('worst_area')\n")
    assert main(["run"]) == 2
    said = capsys.readouterr().err
    assert "champion-cannot-answer" in said
    assert "worst_area" in said
    assert "champion: false" in said


@pytest.mark.thorough
def test_a_failed_gate_stops_the_release_and_says_why(
    make_project: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project(spec=SPEC.replace("at_least: 0.80", "at_least: 0.9999"))
    monkeypatch.chdir(folder)
    assert main(["run"]) == 1
    said = capsys.readouterr()
    assert "check-failed" in said.err
    assert "roc_auc" in said.err
    store = modelyard.open_project(folder)
    assert store.ledger.alias("tumours", "champion") is None
    run = runs(folder)[0]
    assert run.status == "failed"
    assert "roc_auc" in run.reason
    # The card of the refused model is there to be read, and nothing is published as if it were released.
    assert run.step("card").status == "succeeded"
    assert not (folder / "cards").exists()


@pytest.mark.thorough
def test_a_missing_human_part_of_the_card_blocks_the_release(
    make_project: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project(spec=SPEC.replace("  ethics: A wrong low score delays a reading.\n", ""))
    monkeypatch.chdir(folder)
    assert main(["run"]) == 1
    assert "ethics" in capsys.readouterr().err
    assert modelyard.open_project(folder).ledger.alias("tumours", "champion") is None


def assert_whole(folder: Path, expected: modelyard.Run) -> None:
    """Assert that a project that was killed holds what an undisturbed one holds, and did nothing twice."""
    last = runs(folder)[0]
    assert last.status == "succeeded"
    assert last.result == expected.result
    store = modelyard.open_project(folder)
    assert store.ledger.verify() == []
    keys: dict[str, str] = {}
    for event in store.ledger.events(kinds=("step.finished",)):
        assert event.payload["key"] not in keys, f"{event.step} ran twice"
        keys[event.payload["key"]] = event.step
    assert len(store.ledger.aliases("tumours")) == 1
    store.close()


@pytest.mark.slow
def test_twenty_random_kills_lose_nothing_and_change_nothing(make_project: Make) -> None:
    undisturbed = make_project(name="undisturbed")
    assert type_(undisturbed, "run").returncode == 0
    expected = runs(undisturbed)[0]

    rng = random.Random(20)  # noqa: S311 - moments of a kill, not a secret
    kills = episode = 0
    folder = make_project(name="killed-0")
    while kills < 20:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard", "run"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=rng.uniform(0.2, 3.5))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)
            kills += 1
        else:
            # It came to its end in spite of the kills: look at it, and begin again in a fresh folder.
            assert code == 0
            assert_whole(folder, expected)
            episode += 1
            folder = make_project(name=f"killed-{episode}")
        if (folder / ".modelyard").exists():
            assert "running" not in type_(folder, "runs").stdout
    done = type_(folder, "run")
    assert done.returncode == 0, done.stderr
    assert_whole(folder, expected)


@pytest.mark.slow
def test_two_runs_at_once_end_well_or_say_who_holds_it(make_project: Make) -> None:
    folder = make_project()
    command = [sys.executable, "-m", "modelyard", "run"]
    both = [subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [p.communicate(timeout=300)[1] for p in both]
    codes = sorted(p.returncode for p in both)
    assert codes in ([0, 0], [0, 4])
    if codes == [0, 4]:
        busy = next(text for p, text in zip(both, said, strict=True) if p.returncode == 4)
        winner = next(p for p in both if p.returncode == 0)
        assert str(winner.pid) in busy
    assert modelyard.open_project(folder).ledger.verify() == []


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept_and_the_next_run_goes_on(make_project: Make) -> None:
    folder = make_project()
    process = subprocess.Popen(
        [sys.executable, "-m", "modelyard", "run"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (folder / ".modelyard" / "tables").exists():
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "finished steps are kept" in said
    assert runs(folder)[0].status == "cancelled"
    done = type_(folder, "run")
    assert done.returncode == 0
    assert "cached" in done.stderr
