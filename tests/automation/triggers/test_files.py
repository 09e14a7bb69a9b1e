"""A change of a file is fired for once: whatever is restarted, renamed, rewritten or seen twice in between."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
from tests.automation.triggers.conftest import Make, changes

from modelyard._kit.errors import NotFound, UserError
from modelyard.automation.fires import write
from modelyard.automation.triggers import FilesTrigger, file_path
from modelyard.automation.triggers.folders import same_file
from modelyard.automation.triggers.notify import Notifier
from modelyard.records import Draft

ALL = ("created", "updated", "deleted")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def test_what_is_there_at_first_is_the_baseline(bench: Make, inbox: Path) -> None:
    (inbox / "old.csv").write_text("1")
    b = bench(FilesTrigger, files=["in/*.csv"])
    assert b.settle() == []
    (inbox / "new.csv").write_text("1")
    assert changes(b.settle()) == [[("in/new.csv", "created")]]
    assert b.settle() == []


def test_what_is_there_at_first_may_count(bench: Make, inbox: Path) -> None:
    (inbox / "old.csv").write_text("1")
    b = bench(FilesTrigger, files=["in/*.csv"], existing=True)
    assert changes(b.settle()) == [[("in/old.csv", "created")]]
    b.restart()
    assert b.settle() == []


def test_an_empty_folder_is_a_baseline_too(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"])
    b.look()
    (inbox / "while-down.csv").write_text("1")
    b.restart()
    assert changes(b.settle()) == [[("in/while-down.csv", "created")]]


def test_created_updated_deleted(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], on=ALL)
    b.look()
    file = inbox / "a.csv"
    file.write_text("1")
    assert changes(b.settle()) == [[("in/a.csv", "created")]]
    file.write_text("22")
    assert changes(b.settle()) == [[("in/a.csv", "updated")]]
    file.unlink()
    assert changes(b.settle()) == [[("in/a.csv", "deleted")]]
    assert b.fires[-1].items[0].version == ""
    assert "in/a.csv" not in b.store.ledger.seen("arrivals")
    assert b.settle() == []


@pytest.mark.parametrize("each", [False, True])
def test_the_same_file_may_come_again_and_again(bench: Make, inbox: Path, tmp_path: Path, each: bool) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], on=ALL, each=each)
    b.look()
    aside = tmp_path / "aside.csv"
    aside.write_text("1")
    for _ in range(3):
        # Moved in and out it keeps size, time and number.
        aside.rename(inbox / "a.csv")
        assert changes(b.settle()) == [[("in/a.csv", "created")]]
        (inbox / "a.csv").rename(aside)
        assert changes(b.settle()) == [[("in/a.csv", "deleted")]]


@pytest.mark.parametrize("each", [False, True])
def test_a_state_that_comes_back_counts_again(bench: Make, inbox: Path, each: bool) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], each=each)
    file = inbox / "a.csv"
    file.write_text("1")
    b.look()
    for second in (1, 2, 1, 2):
        os.utime(file, (second, second))
        assert changes(b.settle()) == [[("in/a.csv", "updated")]]


def test_a_change_that_nobody_asked_for_is_known_all_the_same(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], on=["created"])
    b.look()
    file = inbox / "today.csv"
    file.write_text("1")
    assert len(b.settle()) == 1
    file.write_text("22")
    assert b.settle() == []
    file.unlink()
    assert b.settle() == []
    b.restart()
    file.write_text("1")
    assert changes(b.settle()) == [[("in/today.csv", "created")]]

    b.restart(on=["deleted"])
    other = inbox / "other.csv"
    other.write_text("1")
    assert b.settle() == []
    other.unlink()
    assert changes(b.settle()) == [[("in/other.csv", "deleted")]]


def test_half_a_file_is_waited_for(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], settle=2.0)
    b.look()
    file = inbox / "big.csv"
    for part in range(5):
        with file.open("a") as f:
            f.write(f"{part}\n")
        assert b.look(after=1.9) == []
    assert b.look(after=1.9) == []
    (fire,) = b.look(after=0.1)
    assert fire.items[0].version.startswith("10-")
    assert b.look(after=5.0) == []


def test_the_next_look_is_when_something_can_be_said(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], settle=2.0, debounce=30.0, every=60.0)
    assert b.trigger.look(b.now).again == b.now + 60
    b.look()
    (inbox / "a.csv").write_text("1")
    look = b.trigger.look(b.now)
    assert (list(look.wanted), look.again) == ([], b.now + 30)
    b.now += 30
    assert len(b.trigger.look(b.now).wanted) == 1


def test_several_changes_within_debounce_are_one_fire(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], settle=1.0, debounce=10.0)
    b.look()
    for number in range(5):
        (inbox / f"{number}.csv").write_text("1")
        assert b.look(after=1.5) == []
    (fire,) = b.look(after=4.0)
    assert len(fire.items) == 5
    (inbox / "late.csv").write_text("1")
    assert b.look(after=1.0) == []
    assert b.look(after=9.0) == []
    assert changes(b.look(after=1.0)) == [[("in/late.csv", "created")]]


def test_debounce_of_each_file_is_its_own(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], settle=1.0, debounce=10.0, each=True)
    b.look()
    (inbox / "a.csv").write_text("1")
    b.look()
    (inbox / "b.csv").write_text("1")
    b.look(after=5.0)
    (inbox / "a.csv").write_text("22")
    assert b.look(after=4.0) == []
    assert changes(b.look(after=1.0)) == [[("in/a.csv", "created")]]
    assert changes(b.look(after=5.0)) == [[("in/b.csv", "created")]]


def test_a_change_and_its_undoing_between_two_looks_is_no_change(bench: Make, inbox: Path) -> None:
    file = inbox / "a.csv"
    file.write_text("1")
    os.utime(file, (5, 5))
    b = bench(FilesTrigger, files=["in/*.csv"], on=ALL)
    b.look()
    file.write_text("2")
    os.utime(file, (5, 5))
    (inbox / "b.csv").write_text("1")
    (inbox / "b.csv").unlink()
    assert b.settle() == []


def test_a_change_that_is_undone_while_it_settles_is_no_change(bench: Make, inbox: Path, tmp_path: Path) -> None:
    file = inbox / "a.csv"
    file.write_text("1")
    b = bench(FilesTrigger, files=["in/*.csv"], on=ALL)
    b.look()
    file.rename(tmp_path / "aside")
    assert b.look() == []
    (tmp_path / "aside").rename(file)
    assert b.settle() == []


def test_a_file_replaced_by_one_of_equal_size_and_time_is_seen(bench: Make, inbox: Path) -> None:
    file, part = inbox / "a.csv", inbox / ".a.csv.part"
    file.write_text("1")
    os.utime(file, (5, 5))
    b = bench(FilesTrigger, files=["in/*.csv"])
    b.look()
    part.write_text("2")
    os.utime(part, (5, 5))
    part.rename(file)
    assert changes(b.settle()) == [[("in/a.csv", "updated")]]


def test_a_change_of_rights_is_none(bench: Make, inbox: Path) -> None:
    file = inbox / "a.csv"
    file.write_text("1")
    b = bench(FilesTrigger, files=["in/*.csv"], on=ALL)
    b.look()
    file.chmod(0o600)
    assert b.settle() == []


def test_numbers_that_change_by_themselves_are_no_change() -> None:
    assert same_file("3-5-77-9", "3-5-78-9")
    assert not same_file("3-5-77-9", "3-5-78-10")
    assert not same_file("3-5-77-9", "4-5-77-9")
    assert not same_file("3-5-77-9", "3-6-77-9")


def test_each_file_is_a_fire_of_its_own(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], each=True, on=ALL)
    b.look()
    for name in "bca":
        (inbox / f"{name}.csv").write_text("1")
    assert changes(b.settle()) == [[(f"in/{name}.csv", "created")] for name in "abc"]
    (inbox / "b.csv").unlink()
    (inbox / "c.csv").write_text("22")
    assert changes(b.settle()) == [[("in/b.csv", "deleted")], [("in/c.csv", "updated")]]


@pytest.mark.parametrize("each", [False, True])
def test_two_that_see_the_same_write_it_down_once(bench: Make, inbox: Path, each: bool) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], each=each)
    b.look()
    other = bench(FilesTrigger, files=["in/*.csv"], each=each)
    for name in "abcd":
        (inbox / f"{name}.csv").write_text("1")
    looks = []
    for one in (b, other):
        one.look()
        one.now += 10
        looks.append(one.trigger.look(one.now))
    # A fifth file is seen by the second one only.
    (inbox / "e.csv").write_text("1")
    assert [len(write(one.trigger, look, one.store)) for one, look in zip((b, other), looks, strict=True)] == [
        4 if each else 1,
        0,
    ]
    b.settle()
    other.settle()
    names = [item.name for fire in b.fires for item in fire.items]
    assert sorted(names) == [f"in/{name}.csv" for name in "abcde"]


@pytest.mark.parametrize("each", [False, True])
def test_one_that_writes_late_doubles_nothing(bench: Make, inbox: Path, each: bool) -> None:
    """A daemon that was asleep writes down what it saw before another one went on."""
    b = bench(FilesTrigger, files=["in/*.csv"], each=each, on=["created"])
    late = bench(FilesTrigger, files=["in/*.csv"], each=each, on=["created"])
    first = late.trigger.look(late.now)
    b.look()
    (inbox / "a.csv").write_text("1")
    assert len(b.settle()) == 1
    # Its baseline was taken when the folder was empty.
    write(late.trigger, first, late.store)
    for one in (b, late):
        for _ in range(3):
            one.settle()
    assert [item.name for fire in b.fires for item in fire.items] == ["in/a.csv"]


def test_one_that_notes_late_what_is_gone_doubles_no_fire_of_a_file(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], each=True, on=["created"], existing=True)
    late = bench(FilesTrigger, files=["in/*.csv"], each=True, on=["created"], existing=True)
    (inbox / "a.csv").write_text("1")
    b.settle()
    (inbox / "a.csv").unlink()
    late.look()
    late.now += 10
    gone = late.trigger.look(late.now)
    assert gone.baseline == {"in/a.csv": ""}
    b.settle()
    (inbox / "a.csv").write_text("again")
    assert len(b.settle()) == 1
    write(late.trigger, gone, late.store)
    for one in (b, late, b):
        assert one.settle() == []
    assert len(b.fires) == 2


def test_a_fire_that_could_not_be_written_is_asked_for_again(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], each=True)
    b.look()
    (inbox / "a.csv").write_text("1")
    b.look()
    b.now += 10
    assert len(b.trigger.look(b.now).wanted) == 1
    # Nothing was written: the disk was full, or the process died.
    assert len(b.settle()) == 1
    assert len(b.fires) == 1


def test_a_trigger_of_other_files_begins_anew(bench: Make, inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old.csv").write_text("1")
    (inbox / "a.csv").write_text("1")
    b = bench(FilesTrigger, files=["in/*.csv"], on=ALL)
    b.look()
    b.restart(files=["there/*.csv"])
    assert b.settle() == []
    (tmp_path / "there" / "new.csv").write_text("1")
    assert changes(b.settle()) == [[("there/new.csv", "created")]]
    b.restart(files=["in/*.csv"])
    assert b.settle() == []
    (inbox / "b.csv").write_text("1")
    assert changes(b.settle()) == [[("in/b.csv", "created")]]


def test_one_fire_for_all_and_one_for_each_may_be_exchanged(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"])
    b.look()
    for number, each in enumerate([False, True, False, True, False]):
        b.restart(each=each)
        (inbox / f"{number}-a.csv").write_text("1")
        (inbox / f"{number}-b.csv").write_text("1")
        assert len(b.settle()) == (2 if each else 1)
    assert sum(len(fire.items) for fire in b.fires) == 10


def test_a_paused_trigger_drops_what_it_sees(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], paused=True)
    b.look()
    (inbox / "a.csv").write_text("1")
    (fire,) = b.settle()
    assert (fire.state, fire.why) == ("dropped", "the trigger is paused in modelyard.yaml")
    b.restart(paused=False)
    assert b.settle() == []
    b.store.ledger.append(Draft(kind="trigger.paused", payload={"trigger": "arrivals", "reason": ""}))
    (inbox / "b.csv").write_text("1")
    assert [f.state for f in b.settle()] == ["dropped"]


def test_patterns_mean_what_they_say(bench: Make, inbox: Path) -> None:
    for name in ("a.csv", ".hidden.csv", "b.txt", "x/c.csv", "x/y/d.csv", ".h/e.csv"):
        (inbox / name).parent.mkdir(parents=True, exist_ok=True)
        (inbox / name).write_text("1")
    wanted = {
        "in/*.csv": {"a.csv"},
        "in/**/*.csv": {"a.csv", "x/c.csv", "x/y/d.csv"},
        "in/**": {"a.csv", "b.txt", "x/c.csv", "x/y/d.csv"},
        "in/*/*.csv": {"x/c.csv"},
        "in/**/y/*": {"x/y/d.csv"},
        "in": {"a.csv", "b.txt"},
        "in/": {"a.csv", "b.txt"},
        "in/.*.csv": {".hidden.csv"},
        "in/[ab].*": {"a.csv", "b.txt"},
        "in/a.csv": {"a.csv"},
        "in/none.csv": set(),
    }
    for pattern, names in wanted.items():
        b = bench(FilesTrigger, files=[pattern])
        found = b.trigger._snapshot()  # type: ignore[attr-defined]
        assert set(found) == {f"in/{name}" for name in names}, pattern
    b = bench(FilesTrigger, files=["in/*.csv", "in/x/*"])
    assert set(b.trigger._snapshot()) == {"in/a.csv", "in/x/c.csv"}  # type: ignore[attr-defined]


def test_names_that_no_text_can_hold(bench: Make, inbox: Path, tmp_path: Path) -> None:
    b = bench(FilesTrigger, files=["in/*"], each=True)
    b.look()
    names = [b"\xff\xfe.csv", "ä ö\n\t'\".csv".encode(), b"bytes:x.csv", b"100%.csv"]
    for name in names:
        Path(os.fsdecode(os.fsencode(inbox) + b"/" + name)).write_text("1")
    fires = b.settle()
    assert len(fires) == 4
    back = {os.fsencode(file_path(fire.items[0].name, tmp_path)) for fire in fires}
    assert back == {os.fsencode(inbox) + b"/" + name for name in names}
    assert all(path.read_text() == "1" for path in (file_path(f.items[0].name, tmp_path) for f in fires))
    assert b.settle() == []


def test_a_folder_that_goes_away_takes_no_file_with_it(bench: Make, inbox: Path) -> None:
    (inbox / "a.csv").write_text("1")
    (inbox / "b.csv").write_text("1")
    b = bench(FilesTrigger, files=["in/*.csv"], on=ALL)
    b.look()
    shutil.rmtree(inbox)
    with pytest.raises(NotFound, match="there is no folder") as error:
        b.look(after=10)
    assert error.value.code == "trigger-folder-missing"
    inbox.mkdir()
    (inbox / "a.csv").write_text("1")
    assert changes(b.settle()) == [[("in/a.csv", "updated"), ("in/b.csv", "deleted")]]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_takes_no_file_with_it(bench: Make, inbox: Path) -> None:
    (inbox / "x").mkdir()
    (inbox / "x" / "a.csv").write_text("1")
    b = bench(FilesTrigger, files=["in/**/*.csv"], on=ALL)
    b.look()
    (inbox / "x").chmod(0)
    try:
        with pytest.raises(UserError) as error:
            b.look(after=10)
        assert error.value.code == "trigger-folder-unreadable"
    finally:
        (inbox / "x").chmod(0o700)
    assert b.settle() == []


def test_links_are_followed_inside_and_not_out(
    bench: Make, inbox: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "far.csv").write_text("1")
    (tmp_path / "near.csv").write_text("1")
    (inbox / "in.csv").symlink_to(tmp_path / "near.csv")
    (inbox / "out.csv").symlink_to(outside / "far.csv")
    (inbox / "broken.csv").symlink_to(inbox / "nothing.csv")
    (inbox / "circle").symlink_to(inbox)
    (inbox / "away").symlink_to(outside)
    b = bench(FilesTrigger, files=["in/**/*.csv"], existing=True)
    with caplog.at_level("WARNING", logger="modelyard.triggers"):
        (fire,) = b.settle()
    assert [item.name for item in fire.items] == ["in/circle/in.csv", "in/in.csv"]
    assert sorted(record.args[0] for record in caplog.records) == [  # type: ignore[index]
        f"{inbox}/away",
        f"{inbox}/circle/away",
        f"{inbox}/circle/out.csv",
        f"{inbox}/out.csv",
    ]
    (tmp_path / "near.csv").write_text("22")
    assert changes(b.settle()) == [[("in/circle/in.csv", "updated"), ("in/in.csv", "updated")]]
    b.restart(follow=True)
    names = {item.name for fire in b.settle() for item in fire.items}
    assert {"in/out.csv", "in/away/far.csv"} <= names


def test_a_clock_that_is_set_back_lets_a_file_settle_anew(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"], settle=2.0)
    b.look()
    (inbox / "a.csv").write_text("1")
    assert b.look() == []
    assert b.look(after=-1000.0) == []
    assert b.look(after=1.9) == []
    assert len(b.look(after=0.1)) == 1


def test_the_system_wakes_it(bench: Make, inbox: Path, tmp_path: Path) -> None:
    woken = threading.Event()
    b = bench(FilesTrigger, files=["in/**/*.csv"])
    b.trigger.start(woken.set)
    assert woken.wait(20)
    woken.clear()
    (inbox / "x").mkdir()
    (inbox / "x" / "a.csv").write_text("1")
    assert woken.wait(20)
    # The folder is made anew: it is another one for the system.
    shutil.rmtree(inbox)
    woken.clear()
    inbox.mkdir()
    assert woken.wait(20)
    woken.clear()
    (inbox / "b.csv").write_text("1")
    assert woken.wait(20)
    b.trigger.close()
    before = {thread.name for thread in threading.enumerate()}
    assert "modelyard-files" not in before


def test_a_folder_that_the_system_cannot_watch_is_looked_at_more_often(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"])
    assert b.trigger.every == 30.0
    shutil.rmtree(inbox)
    b.trigger.start(lambda: None)
    assert b.trigger.every == 5.0
    b.trigger.close()
    b.restart(every=60.0)
    b.trigger.start(lambda: None)
    assert b.trigger.every == 60.0


def test_what_came_while_the_pattern_was_changed_counts(bench: Make, inbox: Path) -> None:
    b = bench(FilesTrigger, files=["in/*.csv"])
    b.look()
    for name in ("a.csv", "b.parquet"):
        (inbox / name).write_text("1")
    b.restart(files=["in/*.csv", "in/*.parquet"])
    assert changes(b.settle()) == [[("in/a.csv", "created")]]
    (inbox / "c.parquet").write_text("1")
    (inbox / "d.csv").write_text("1")
    b.restart(files=["in/*"])
    assert changes(b.settle()) == [[("in/c.parquet", "created"), ("in/d.csv", "created")]]


def test_what_is_hidden_wakes_nobody(tmp_path: Path) -> None:
    heard = Notifier([tmp_path], deep=True, hidden=False, wake=lambda: None, rest=lambda: 0.0).hears
    # Our own records lie there and change all the time.
    assert not heard(None, f"{tmp_path}/.modelyard/ledger.db-wal")
    assert not heard(None, f"{tmp_path}/in/.a.csv.part")
    assert heard(None, f"{tmp_path}/in/a.csv")
    assert heard(None, str(tmp_path))
