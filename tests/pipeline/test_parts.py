"""A folder of answers takes the place of the one before it: at every moment one of both is there, whole."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from modelyard.pipeline.scoring import parts as parts_module
from modelyard.pipeline.scoring.parts import Parts

# Writes a folder anew, and dies at the n-th thing that it does to the disk from where the output is finished.
WRITER = """
import os, signal, sys
from pathlib import Path
import polars as pl
from modelyard.pipeline.scoring import parts as module
from modelyard.pipeline.scoring.parts import Parts

at, left = Path(sys.argv[1]), int(sys.argv[2])
if sys.argv[3] == "renames":
    module._exchange = lambda one, other: False
parts = Parts(at, "folder", {"rows": "new"})
done = False

def count(event, arguments):
    global left
    if done or event not in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "ctypes.call_function"):
        return
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

with parts.held():
    parts.take(parts.write(0, pl.DataFrame({"a": [2]})), 1)
    sys.addaudithook(count)
    parts.finish(10)
    done = True
"""


def made(output: Path, name: str, value: int) -> None:
    parts = Parts(output, "folder", {"rows": name})
    with parts.held():
        parts.take(parts.write(0, pl.DataFrame({"a": [value]})), 1)
        parts.finish(10)


def seen(output: Path) -> tuple[str, int]:
    """Return what the output is of, and what it holds."""
    manifest = json.loads((output / "manifest.json").read_bytes())
    (part,) = manifest["parts"]
    return manifest["about"]["rows"], pl.read_parquet(output / part["file"])["a"].item()


def nothing_beside(output: Path) -> bool:
    return [path.name for path in output.parent.iterdir()] == [output.name]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_killed_anywhere_the_old_or_the_new_one_is_there(tmp_path: Path, way: str) -> None:
    found = []
    for moment in range(1, 30):
        output = tmp_path / str(moment) / "out"
        output.parent.mkdir()
        made(output, "old", 1)
        code = subprocess.run([sys.executable, "-c", WRITER, str(output), str(moment), way], check=False).returncode
        assert code in (0, -signal.SIGKILL)
        if way == "renames":
            # Without an exchange there is a moment with neither; whoever comes next gives back the old one.
            with Parts(output, "folder", {"rows": "new"}).held():
                pass
        found.append(seen(output))
        made(output, "next", 3)
        assert seen(output) == ("next", 3)
        assert nothing_beside(output)
        if not code:
            break
    assert not code
    assert set(found) == {("old", 1), ("new", 2)}
    # Once it is there, it stays there.
    assert found == sorted(found, reverse=True)


def test_the_old_one_comes_back_where_the_new_one_did_not_get_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    made(output, "old", 1)
    monkeypatch.setattr(parts_module, "_exchange", lambda one, other: False)
    rename = Path.rename

    def stopped(self: Path, to: Path) -> Path:
        if to == output:
            raise KeyboardInterrupt
        return rename(self, to)

    with monkeypatch.context() as now:
        now.setattr(Path, "rename", stopped)
        with pytest.raises(KeyboardInterrupt):
            made(output, "new", 2)
    assert not output.exists()
    with Parts(output, "folder", {"rows": "new"}).held():
        assert seen(output) == ("old", 1)
    made(output, "new", 2)
    assert seen(output) == ("new", 2)
    assert nothing_beside(output)


def test_two_folders_change_places(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    if not parts_module._exchange(one, other):
        pytest.skip("not with this kernel or file system")
    assert (one / "other").exists()
    assert (other / "one").exists()
    with pytest.raises(FileNotFoundError):
        parts_module._exchange(one, tmp_path / "none")
