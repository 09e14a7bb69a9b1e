"""A delivery is taken once, durably, and a stranger learns nothing."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import modelyard
from modelyard._kit.errors import UserError
from modelyard.automation.hooks import app
from modelyard.automation.triggers.signature import sign
from modelyard.automation.triggers.webhook import WebhookTrigger
from modelyard.pipeline.fired import given
from modelyard.pipeline.project import run_project
from modelyard.pipeline.replay import replay
from modelyard.records import Draft, Fire
from modelyard.spec.sections.triggers import OwnTrigger
from modelyard.store import LocalStore

SECRET = "a secret of sixteen bytes and more"
NOW = 1_700_000_000.0


class House:
    """A receiver behind its application, without a network."""

    def __init__(self, root: Path, **said: Any) -> None:
        self.now = NOW
        self.ticks = 0.0
        self.woken = 0
        self.store = LocalStore(root, clock=lambda: self.now)
        hook = {"secret": ["HOOK_SECRET"], **said.pop("webhook", {})}
        section = msgspec.convert({"webhook": hook, **said}, OwnTrigger)
        self.trigger = WebhookTrigger("deployed", section, root, self.store, clock=lambda: self.now)
        self.trigger.start(self.wake)
        self.app = app([self.trigger], per_minute=60, clock=lambda: self.ticks)

    def wake(self) -> None:
        self.woken += 1

    def ask(self, method: str = "POST", path: str = "/hooks/deployed", **more: Any) -> httpx.Response:
        client = more.pop("client", ("192.0.2.1", 1))

        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=client)
            async with httpx.AsyncClient(transport=transport, base_url="http://up") as http:
                return await http.request(method, path, **more)

        return asyncio.run(once())

    def send(self, body: bytes = b"{}", *, id: str = "msg_1", secret: str = SECRET, **more: Any) -> httpx.Response:  # noqa: A002
        headers = sign(secret, id=id, timestamp=int(self.now), body=body)
        return self.ask(content=body, headers={**headers, **more.pop("headers", {})}, **more)

    @property
    def fires(self) -> list[Fire]:
        return self.store.ledger.fires(trigger="deployed")


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    assert made.store.ledger.verify() == []
    made.store.close()


def test_a_signed_delivery_becomes_a_fire(house: House) -> None:
    answer = house.send(b'{"version": 3}')
    assert answer.status_code == 202
    (fire,) = house.fires
    assert answer.json() == {"status": "queued", "fire": fire.id}
    assert (fire.kind, fire.key, fire.payload, fire.due) == ("webhook", "deployed/msg_1", {"version": 3}, NOW)
    assert (fire.actor, house.woken) == ("trigger:deployed", 1)


def test_a_repeated_delivery_is_answered_and_not_run_again(house: House) -> None:
    assert house.send().status_code == 202
    again = house.send()
    assert (again.status_code, again.json()) == (200, {"status": "known"})
    # Signed anew a minute later, as senders do that heard no answer; and by another process of ours.
    house.now += 60
    assert house.send().status_code == 200
    other = House(house.store.root)
    assert other.send().status_code == 200
    assert len(house.fires) == 1
    assert house.send(id="msg_2").status_code == 202


def test_who_is_told_that_it_is_taken_can_rely_on_it(house: House) -> None:
    fire = house.send().json()["fire"]
    # Nothing but what lies on the disk.
    with LocalStore(house.store.root) as other:
        found = other.ledger.fire(fire)
    assert found is not None
    assert found.state == "queued"


def test_a_stranger_learns_nothing(house: House) -> None:
    wrong = house.send(secret="another secret of sixteen bytes")
    house.now += 1000
    old = house.ask(content=b"{}", headers=sign(SECRET, id="m", timestamp=int(NOW), body=b"{}"))
    bare = house.ask(content=b"{}")
    assert {(a.status_code, a.text) for a in (wrong, old, bare)} == {(401, '{"error":"not taken"}')}
    assert house.fires == []
    assert sum(house.trigger.refused.values()) == 3


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/hooks/other", 404),
        ("POST", "/hooks/", 404),
        ("POST", "/hooks/deployed/", 404),
        ("POST", "/", 404),
        ("GET", "/hooks/deployed", 405),
        ("PUT", "/hooks/deployed", 405),
    ],
)
def test_other_addresses_and_methods(house: House, method: str, path: str, status: int) -> None:
    answer = house.ask(method, path, content=b"x")
    assert answer.status_code == status
    assert "deployed" not in answer.text
    assert house.fires == []


def test_a_large_body_is_not_read(house: House) -> None:
    assert house.send(b"x" * 1_000_001).status_code == 413
    assert house.ask(content=b"{}", headers={"content-encoding": "gzip"}).status_code == 415
    body = json.dumps({"x": "y" * 900_000}).encode()
    assert house.send(body).status_code == 202


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff", b'{"a": NaN}', b"1e999", b'"\\ud800"', b"[" * 100_000, b'{"a": ' * 5000 + b"1" + b"}" * 5000],
)
def test_what_is_not_json_is_refused_and_not_half_kept(house: House, body: bytes) -> None:
    assert house.send(body).status_code == 400
    assert house.fires == []


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"", None),
        (b"null", None),
        (b"[1, 2.5, true]", [1, 2.5, True]),
        (b'"\\u00e4\\u0000"', "ä\0"),
        (b'{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
    ],
)
def test_any_json_will_do(house: House, body: bytes, payload: Any) -> None:
    assert house.send(body).status_code == 202
    assert house.fires[0].payload == payload


def test_secrets_in_a_body_are_not_written_down(house: House) -> None:
    body = {
        "key": "in/2026-11-21.csv",
        "password": "hunter2",
        "nested": [{"api_key": "abcdef", "pin": {"client_secret": 1234}}],
        "token": "k3j4h5k3j4h5",
        "text": "call with Authorization: Bearer abc.def.ghi now",
        "url": "postgresql://me:pw@db/x",
        "count": 3,
        "ok": True,
    }
    house.send(json.dumps(body).encode())
    assert house.fires[0].payload == {
        "key": "in/2026-11-21.csv",
        "password": "[redacted]",
        "nested": [{"api_key": "[redacted]", "pin": {"client_secret": "[redacted]"}}],
        "token": "[redacted]",
        "text": "call with Authorization: Bearer [redacted] now",
        "url": "postgresql://[redacted]@db/x",
        "count": 3,
        "ok": True,
    }


def test_a_secret_is_exchanged_without_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").write_text("the new secret, long enough\n")
    house = House(tmp_path, webhook={"secret": ["file:new", "env:HOOK_SECRET"]})
    assert house.send(id="1").status_code == 202
    assert house.send(id="2", secret="the new secret, long enough").status_code == 202
    # The file is exchanged under the running server, and the old one taken away.
    (tmp_path / "new").write_text("the newest secret, long enough")
    monkeypatch.delenv("HOOK_SECRET")
    assert house.send(id="3", secret="the newest secret, long enough").status_code == 202
    assert house.send(id="4", secret="the new secret, long enough").status_code == 401
    assert house.send(id="5").status_code == 401
    (tmp_path / "new").unlink()
    assert house.send(id="6").status_code == 503


@pytest.mark.parametrize(
    ("value", "code"),
    [(None, "secret-unset"), ("", "secret-unset"), ("short", "secret-unusable"), ("whsec_!!", "secret-unusable")],
)
def test_a_secret_that_is_none_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, code: str
) -> None:
    monkeypatch.delenv("HOOK_SECRET")
    if value is not None:
        monkeypatch.setenv("HOOK_SECRET", value)
    with pytest.raises(UserError) as error:
        House(tmp_path)
    assert error.value.code == code
    if value:
        assert value not in str(error.value)


def test_github_may_send(tmp_path: Path) -> None:
    house = House(tmp_path, webhook={"style": "github"})
    body = b'{"ref": "refs/heads/main"}'
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": signature, "X-GitHub-Delivery": "1"}
    assert house.ask(content=body, headers=headers).status_code == 202
    assert house.ask(content=body, headers={**headers, "X-GitHub-Delivery": "2"}).status_code == 200
    assert house.send(body).status_code == 401


def test_one_source_cannot_ask_for_ever(house: House) -> None:
    answers = [house.ask(content=b"{}").status_code for _ in range(70)]
    assert answers == [401] * 60 + [429] * 10
    last = house.ask(content=b"{}")
    assert int(last.headers["retry-after"]) >= 1
    # Another source is not slowed; of an IPv6 network all are one.
    assert house.send(client=("192.0.2.2", 1)).status_code == 202
    for number in range(60):
        house.ask(content=b"{}", client=(f"2001:db8::{number:x}", 1))
    assert house.ask(content=b"{}", client=("2001:db8::ffff", 1)).status_code == 429
    house.ticks += 2.0
    assert house.send(id="msg_2").status_code == 202


def test_several_within_debounce_are_one_run(tmp_path: Path) -> None:
    house = House(tmp_path, debounce=60.0)
    first = house.send(id="1").json()
    house.now += 30
    second = house.send(id="2").json()
    assert second == first
    assert house.send(id="2").status_code == 200
    assert [(f.state, f.why) for f in house.fires] == [("queued", ""), ("dropped", f"joined fire {first['fire']}")]
    assert house.fires[0].not_before == NOW + 60
    house.now += 31
    assert house.send(id="3").json()["fire"] != first["fire"]


def test_a_run_sees_every_body_that_its_fire_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path, debounce=60.0)
    (tmp_path / "own.py").write_text("def seen(fire):\n    return fire\n")
    (tmp_path / "modelyard.yaml").write_text("project: p\nsteps:\n  seen: {function: own.py:seen}\n")
    first = house.send(b'{"n": 1}', id="1").json()["fire"]
    house.send(b'{"n": 2, "password": "hunter2"}', id="2")
    house.send(b"", id="3")
    # Another process, and one that was told of it twice.
    assert House(tmp_path, debounce=60.0).send(b'{"n": 2}', id="2").status_code == 200
    fire = house.store.ledger.fire(first)
    assert fire is not None
    # The run begins after a delivery has seen that the fire waits, and before it joins: it is not lost with it.
    ledger = house.store.ledger
    runs: list[Any] = []
    asked = ledger.fire

    def overtaken(id: str) -> Fire | None:  # noqa: A002
        seen = asked(id)
        if not runs:
            runs.append("begun")
            runs[:] = [run_project(modelyard.load(tmp_path / "modelyard.yaml"), house.store, fire=fire)]
        return seen

    monkeypatch.setattr(ledger, "fire", overtaken)
    late = house.send(b'{"n": 4}', id="4").json()["fire"]
    (done,) = runs
    assert late != first
    assert [(f.id, f.state) for f in house.fires if not f.joined] == [(first, "succeeded"), (late, "queued")]
    assert house.send(b'{"n": 5}', id="5").json()["fire"] == late
    (told,) = done.step("seen").outputs.values()
    assert told["payload"] == {"n": 1}
    assert told["payloads"] == [{"n": 1}, {"n": 2, "password": "[redacted]"}, None]
    # And so does who replays the step.
    assert replay(house.store, done, "seen").same


def test_what_has_no_room_waits_for_a_run_of_its_own(tmp_path: Path) -> None:
    house = House(tmp_path, debounce=60.0)
    large = json.dumps("x" * 900_000).encode()
    fires = [house.send(large, id=str(number)).json()["fire"] for number in range(6)]
    assert fires == [fires[0]] * 4 + [fires[4]] * 2
    assert fires[4] != fires[0]
    many = [house.send(b"1", id=f"m{number}", client=(f"192.0.2.{number}", 1)).json()["fire"] for number in range(100)]
    assert many == [fires[4]] * 98 + [many[98]] * 2
    bodies = [given(fire, house.store)["payloads"] for fire in house.fires if fire.state == "queued"]
    assert [len(one) for one in bodies] == [4, 100, 2]


@pytest.mark.parametrize("by_file", [False, True])
def test_a_paused_hook_says_so(tmp_path: Path, by_file: bool) -> None:
    house = House(tmp_path, paused=by_file)
    if not by_file:
        house.store.ledger.append(Draft(kind="trigger.paused", payload={"trigger": "deployed", "reason": ""}))
    answer = house.send()
    assert (answer.status_code, answer.json()["status"]) == (202, "dropped")
    assert "paused" in answer.json()["why"]
    assert [f.state for f in house.fires] == ["dropped"]


def test_a_disk_that_takes_nothing_is_told_the_sender(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise UserError("disk-full", "no space left on the device")

    monkeypatch.setattr(house.store.ledger, "append", full)
    answer = house.send()
    assert (answer.status_code, answer.json()) == (503, {"error": "not now"})
    monkeypatch.undo()
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    assert house.send().status_code == 202
