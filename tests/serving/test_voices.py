"""What a server says of one of its endpoints stands in the logs of that one's project, whoever says it and when."""

from __future__ import annotations

import queue
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest

from modelyard.security.tokens import TokenBook, add_token
from modelyard.serving.access import Callers
from modelyard.serving.errors import HttpError
from modelyard.serving.guards.policy import Access
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.http.heads import Head
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.told import Voice, _usual, speak_for, speaking
from modelyard.serving.versions.rollout import Plan, Rollout

from .conftest import lay, mixed_bundle, start  # noqa: TID252 - the suite is not installed
from .inprocess import Endpoint  # noqa: TID252
from .test_checks import YES, own  # noqa: TID252
from .test_extraction import profiled, searched  # noqa: TID252
from .versions import ENDPOINT, Yard, fails_beyond, times, until  # noqa: TID252


def lines(project: Path) -> str:
    return "".join(file.read_text() for file in (project / ".modelyard" / "logs").rglob("*.jsonl"))


def only_in_hours(root: Path, text: str) -> None:
    until(lambda: text in lines(root / "hours"), seconds=5)
    assert text not in lines(root / "credit")


@pytest.fixture
def voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Voice:
    """The voice of an endpoint in a process that otherwise speaks for another one."""
    for name in ("about", "files"):
        monkeypatch.setattr(_usual, name, getattr(_usual, name))
    speak_for(Voice.of(tmp_path / "credit", "credit"))
    return Voice.of(tmp_path / "hours", "hours")


def test_what_went_wrong_inside_is_told_to_the_project_whose_model_it_was(tmp_path: Path) -> None:
    folders = [lay(tmp_path / "credit", mixed_bundle()), lay(tmp_path / "hours", fails_beyond(5))]
    token = add_token(tmp_path / "hours", "hugo", "analyst")
    other = ["--and", "--bundle", str(folders[1]), "--project", str(tmp_path / "hours")]
    server = start(tmp_path / "credit", folders[0], *other, hugo=token)
    with server.client("hugo") as client:
        assert client.post("/models/hours/predict", json={"a": 7}).status_code == 500
    assert server.stop() == 0
    only_in_hours(tmp_path, "not answered")


@pytest.mark.parametrize("body", ["1 / 0", "time.sleep(1)"])
def test_check_that_fails(tmp_path: Path, voice: Voice, body: str) -> None:
    (tmp_path / "guards.py").write_text(f"import time\n\ndef check(batch):\n    {body}\n")
    with speaking(voice):
        endpoint = Endpoint(tmp_path, mixed_bundle(), {"checks": [own(timeout=0.05)]})
    with endpoint:
        [(status, _)] = endpoint.ask(YES)
    assert status == 200
    only_in_hours(tmp_path, "the check `check` failed")


def test_log_of_what_is_held_back_that_cannot_be_written(tmp_path: Path, voice: Voice) -> None:
    with speaking(voice):
        log = RequestLog(tmp_path / "requests.db")
    # Made when the first answer is held back, in the turn of whoever asked.
    apart = log.apart()
    apart.path.write_bytes(b"this is no database" * 100)
    apart._queue.append((b"", 1, 0.0))
    apart._work.set()
    only_in_hours(tmp_path, "answered rows cannot be logged")
    log.close(seconds=0)


def test_tokens_that_cannot_be_read(tmp_path: Path, voice: Voice) -> None:
    add_token(tmp_path / "hours", "hugo", "analyst")
    callers = Callers(TokenBook(tmp_path / "hours", every=0), Access(), "hours", voice)
    (tmp_path / "hours" / ".modelyard" / "keys" / "tokens.json").write_text("nonsense")
    with pytest.raises(HttpError):
        callers.find(Exchange(None, Head(headers={b"authorization": b"Bearer x"})), "")
    only_in_hours(tmp_path, "tokens cannot be read")


def test_shadow_that_does_not_keep_up(tmp_path: Path, voice: Voice) -> None:
    with speaking(voice):
        endpoint = Endpoint(tmp_path, mixed_bundle(), None)
        rollout = Rollout(endpoint.service, endpoint.service, Plan(shadow=True))
    with endpoint:
        rollout._copies = queue.Queue(1)
        for _ in range(2):
            rollout._copy(None, [])  # type: ignore[arg-type]
    only_in_hours(tmp_path, "the shadow does not keep up")


def test_caller_who_seems_to_copy(tmp_path: Path, voice: Voice) -> None:
    """Also where nobody waits for the look of every second."""
    rng = np.random.default_rng(11)
    with speaking(voice):
        endpoint = Endpoint(tmp_path, profiled(), {"extraction": {"do": "limit"}})
    with endpoint:
        asked = (endpoint.ask({"rows": [searched(rng, 64 * at + one) for one in range(64)]})[0][0] for at in count())
        assert 429 in islice(asked, 2000)
    only_in_hours(tmp_path, "asks as if to copy the model")


def test_what_the_ledger_wants_of_one_endpoint(tmp_path: Path) -> None:
    """Said by the thread that follows it, and by the loop on its behalf."""
    yard = Yard(tmp_path / "hours")
    kept = yard.keep(times(2.0))
    yard.point(kept)
    credit = tmp_path / "credit"
    other = ["--and", "--bundle", str(yard.folder(kept)), "--project", str(yard.root), "--endpoint", ENDPOINT]
    server = start(credit, lay(credit, mixed_bundle()), *other, "--follow", "champion", **yard.tokens)
    with server.client("operator") as client:
        path = f"/v2/repository/models/{ENDPOINT}"
        assert client.post(f"{path}/unload").status_code == 200
        spoiled = yard.keep(times(5.0))
        yard.spoil(spoiled)
        yard.point(spoiled)
        assert client.post(f"{path}/load").status_code == 503
    yard.store.close()
    assert server.stop() == 0
    for text in (f"unloaded endpoint={ENDPOINT}", "does not go live", f"stopped endpoint={ENDPOINT}"):
        only_in_hours(tmp_path, text)
