"""Disks that are full or may only be read: what a command says of them, and what can be read there all the same."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard._kit.places import log_path
from modelyard.cli.main import main
from modelyard.store.disk import refused
from modelyard.store.requests import Block, Turn, connect, encode, write_block

Capture = pytest.CaptureFixture[str]
SPEC = "project: p\nsteps:\n  one: {function: steps.py:one}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "modelyard.yaml").write_text(SPEC)
    (folder / "steps.py").write_text("def one():\n    return 1\n")
    monkeypatch.chdir(folder)
    assert main(["run"]) == 0
    return folder


@pytest.fixture
def asked(project: Path) -> Path:
    """A request log with one request."""
    log = log_path(project, "income")
    log.parent.mkdir(parents=True, exist_ok=True)
    db = connect(log)
    turn = Turn(4e9, "m" * 64, "", ["r-1"], ["ana"], [1.0], [1], [b'[{"a": 1}]'], [[{"prediction": 1.0}]])
    write_block(db, Block(4e9, 4e9, 1, [encode(turn)]))
    db.close()
    return log


def mounted(mount: str, line: str) -> tuple[int, str, str]:
    """Run a command in a mount namespace of its own after a mount."""
    # Python takes a file that was cut off at a limit for one that is whole, and reads it the next time.
    python = f"env PYTHONDONTWRITEBYTECODE=1 {sys.executable}"
    script = f"{mount} || exit 99; cd {Path.cwd()} && exec {python} -m modelyard {line}"
    command = ["unshare", "--mount", "--map-root-user", "/bin/sh", "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError:
        pytest.skip("this machine has no namespaces")
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("this machine does not allow a mount of its own")
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def still(folder: Path) -> str:
    return f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"


def test_requests_of_a_project_that_may_only_be_read_are_shown(project: Path, asked: Path) -> None:
    code, out, err = mounted(still(project), "logs r-1")
    assert (code, err) == (0, "")
    assert "1 row of ana answered" in out


def test_requests_that_need_a_folder_to_write_in_say_so(project: Path, asked: Path) -> None:
    # Another connection has written what is not yet in the file itself.
    db = connect(asked)
    db.execute("INSERT INTO truths VALUES ('r-1', '1')")
    for name in ("-wal", "-shm"):
        asked.with_name(f"{asked.name}{name}").rename(asked.with_name(f"kept{name}"))
    asked.with_name("kept-wal").rename(asked.with_name(f"{asked.name}-wal"))
    code, _, err = mounted(still(project), "logs r-1")
    db.close()
    assert code == 2
    assert "error[requests-unreadable]" in err
    assert "move the file away" not in err
    assert "where it can be written" in err


def test_a_log_that_is_damaged_is_said_by_whoever_reads_it(project: Path, asked: Path, capsys: Capture) -> None:
    asked.write_bytes(b"no database" * 100)
    for line in ("logs", "logs r-1", "logs --follow --since 1h"):
        assert main([*line.split(), "--json"]) == 2
        (problem,) = json.loads(capsys.readouterr().out.splitlines()[-1])["problems"]
        assert problem["code"] == "requests-unreadable"
        assert problem["where"] == str(asked)


def full(folder: Path) -> str:
    """Mount a disk of which nothing is left over a folder, with what stands in it."""
    return (
        f"mkdir -p {folder} && cp -a {folder} /tmp/full.$$ && mount -t tmpfs -o size=4m tmpfs {folder} && "
        f"cp -a /tmp/full.$$/. {folder} && rm -r /tmp/full.$$ && find {folder} -name '*.db-shm' -delete && "
        f"(cat /dev/zero > {folder}/filler 2>/dev/null; true)"
    )


@pytest.mark.parametrize(
    ("line", "named"),
    [("nginx 10.0.0.1:8080 -o site.conf", "`site.conf`"), ("token add bob", "the project in `{project}`")],
)
def test_what_cannot_be_written_is_named_as_the_user_knows_it(project: Path, line: str, named: str) -> None:
    code, _, err = mounted(still(project), line)
    assert code == 2
    assert "error[store-not-writable]" in err
    assert f"{named.format(project=project)} cannot be written: Read-only file system" in err
    assert ("copy the project" in err) is ("project" in named)
    for ours in (".part", ".lock", "[system]"):
        assert ours not in err


def test_a_full_disk_is_said_of_what_was_asked_for(project: Path) -> None:
    keys = project / ".modelyard" / "keys"
    for folder, line, named in (
        (project, "nginx 10.0.0.1:8080 -o site.conf", "`site.conf`"),
        (keys, "token add bob", f"the project in `{project}`"),
    ):
        code, _, err = mounted(full(folder), line)
        assert code == 2, err
        assert "error[disk-full]" in err
        assert named in err
        assert ".part" not in err
        assert "finished steps" not in err


@pytest.mark.parametrize("line", ["status", "runs", "verify", "plan", "run", "rollback income", "serve", "kill income"])
def test_a_project_on_a_disk_without_a_byte_left_says_so(project: Path, line: str) -> None:
    # Not even the shared memory of its databases can be made there.
    why = " --reason harm" if line.startswith("kill") else ""
    code, _, err = mounted(full(project), line + why)
    said, ends = ("kill-unwritten", 3) if why else ("disk-full", 2)
    assert f"error[{said}]" in err, err
    assert code == ends
    assert f"no space left on the disk of `{project / '.modelyard' / 'ledger.db'}`" in err
    assert why or "free some space, then run the same command again" in err


def test_what_a_full_disk_kept_shut_opens_once_there_is_space(project: Path) -> None:
    modelyard = f"{sys.executable} -m modelyard"
    tried = f"cd {project} && ! {modelyard} status && rm filler && {modelyard} verify --ledger"
    code, out, err = mounted(f"{full(project)} && {tried}", "runs --json")
    assert code == 0, err
    assert err.count("error[disk-full]") == 1
    assert '"succeeded"' in out


def test_what_the_system_refuses_while_there_is_space_is_no_full_disk(project: Path) -> None:
    for shared in (project / ".modelyard").glob("*-shm"):
        shared.unlink()
    code, _, err = mounted("ulimit -f 8", "status")
    assert (code, "error[system]" in err) == (2, True), err
    assert "ledger.db`: disk I/O error" in err


def test_requests_on_a_full_disk_are_no_damaged_log(project: Path, asked: Path) -> None:
    code, _, err = mounted(full(asked.parent), "logs r-1")
    assert (code, "error[disk-full]" in err) == (2, True), err
    assert f"no space left on the disk of `{asked}`" in err
    assert "move the file away" not in err


def test_a_full_disk_of_what_the_machine_s_processes_share_is_said(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    monkeypatch.setenv("MODELYARD_MACHINE", str(shared))
    Path("modelyard.yaml").write_text(SPEC.replace("one}", "one, resources: {own_process: true}}"))
    Path("steps.py").write_text("def one():\n    return 2\n")
    code, _, err = mounted(full(shared), "run")
    assert (code, "error[disk-full]" in err) == (2, True), err
    assert f"no space left on the disk of `{shared}" in err


def test_a_run_on_a_full_disk_says_what_is_kept(project: Path) -> None:
    Path("steps.py").write_text("def one():\n    return list(range(100_000))\n")
    code, _, err = mounted(full(project / ".modelyard" / "blobs"), "run")
    assert code == 2, err
    assert "error[disk-full]" in err
    assert "finished steps are kept" in err


def test_parts_of_an_output_go_by_its_name() -> None:
    for name, meant in (
        (".o.csv.scoring", "o.csv"),
        ("out/.o.csv.scoring/part-00000", "out/o.csv"),
        ("cards/.adult-abc.html.0a1b2c3d.part", "cards/adult-abc.html"),
        ("rows.csv", "rows.csv"),
    ):
        said = refused(OSError(errno.EROFS, "Read-only file system", name), unnamed="the project")
        assert said.code == "store-not-writable"
        assert said.problem.message == f"`{meant}` cannot be written: Read-only file system"


def test_a_file_that_may_not_be_read_is_not_said_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a")
    monkeypatch.setattr("os.access", lambda *_: False)  # who runs as root may read all
    assert refused(PermissionError(errno.EACCES, "Permission denied", str(rows)), unnamed="").code == "system"
