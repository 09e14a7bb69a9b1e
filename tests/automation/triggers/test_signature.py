"""Only who knows the secret is believed, and only for so long."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from modelyard.automation.triggers.signature import TOLERANCE, Unsigned, key_of, sender_id, sign

SECRET = "a secret of sixteen bytes and more"
KEYS = [key_of(SECRET)]
NOW = 1_700_000_000.0


def delivery(body: bytes = b"{}", **more: str) -> dict[str, str]:
    return {**sign(SECRET, id="msg_1", timestamp=int(NOW), body=body), **more}


def test_the_published_example_holds() -> None:
    """From the specification of Standard Webhooks."""
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert sender_id("standard", headers, b'{"test": 2432232314}', [key], 1614265330.0) == headers["webhook-id"]


def test_githubs_published_example_holds() -> None:
    """From GitHub's page on validating deliveries."""
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    key = key_of("It's a Secret to Everybody")
    found = sender_id("github", {"x-hub-signature-256": signature}, b"Hello, World!", [key], 0.0)
    assert found == f"sha256-{hashlib.sha256(b'Hello, World!').hexdigest()}"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (delivery(), b"{ }"),
        (delivery(**{"webhook-id": "msg_2"}), b"{}"),
        (delivery(**{"webhook-timestamp": str(int(NOW) + 1)}), b"{}"),
        (delivery(**{"webhook-signature": ""}), b"{}"),
        (delivery(**{"webhook-signature": "v1,"}), b"{}"),
        (delivery(**{"webhook-signature": "v1,not base64"}), b"{}"),
        (delivery(**{"webhook-signature": "v1a," + delivery()["webhook-signature"][3:]}), b"{}"),
        (delivery(**{"webhook-signature": delivery()["webhook-signature"].replace("v1", "v2")}), b"{}"),
        (delivery(**{"webhook-signature": " ".join(["v1,AAAA"] * 8 + [delivery()["webhook-signature"]])}), b"{}"),
        (delivery(**{"webhook-id": ""}), b"{}"),
        (delivery(**{"webhook-id": "x" * 201}), b"{}"),
        (delivery(**{"webhook-id": "a b"}), b"{}"),
        (delivery(**{"webhook-timestamp": "now"}), b"{}"),
        (delivery(**{"webhook-timestamp": "-1"}), b"{}"),
        (delivery(**{"webhook-timestamp": "٣"}), b"{}"),
        ({}, b"{}"),
        ({"x-hub-signature-256": "sha256=" + hmac.new(KEYS[0], b"{}", "sha256").hexdigest()}, b"{}"),
    ],
)
def test_what_was_changed_is_not_believed(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(Unsigned):
        sender_id("standard", headers, body, KEYS, NOW)


@pytest.mark.parametrize(("off", "holds"), [(0, True), (TOLERANCE, True), (TOLERANCE + 1, False)])
def test_an_old_delivery_is_not_believed_nor_one_of_the_future(off: float, holds: bool) -> None:
    for now in (NOW + off, NOW - off):
        if holds:
            assert sender_id("standard", delivery(), b"{}", KEYS, now) == "msg_1"
        else:
            with pytest.raises(Unsigned, match="off"):
                sender_id("standard", delivery(), b"{}", KEYS, now)


def test_each_of_several_secrets_and_signatures_will_do() -> None:
    new = "another secret of sixteen bytes"
    keys = [key_of(new), *KEYS]
    assert sender_id("standard", delivery(), b"{}", keys, NOW) == "msg_1"
    both = f"v1,AAAA {delivery()['webhook-signature']} v1a,xxx"
    assert sender_id("standard", delivery(**{"webhook-signature": both}), b"{}", KEYS, NOW) == "msg_1"
    with pytest.raises(Unsigned):
        sender_id("standard", delivery(), b"{}", [key_of(new)], NOW)
    with pytest.raises(Unsigned):
        sender_id("standard", delivery(), b"{}", [], NOW)


def test_githubs_id_does_not_count_as_nobody_signed_it() -> None:
    headers = {"x-hub-signature-256": "sha256=" + hmac.new(KEYS[0], b"{}", "sha256").hexdigest()}
    first = sender_id("github", {**headers, "x-github-delivery": "1"}, b"{}", KEYS, NOW)
    assert sender_id("github", {**headers, "x-github-delivery": "2"}, b"{}", KEYS, NOW) == first
    with pytest.raises(Unsigned):
        sender_id("github", headers, b"{ }", KEYS, NOW)
    with pytest.raises(Unsigned):
        sender_id("github", delivery(), b"{}", KEYS, NOW)


def test_a_secret_in_base64() -> None:
    raw = b"0123456789abcdef"
    assert key_of(f"whsec_{base64.b64encode(raw).decode()}") == raw
    with pytest.raises(ValueError, match="base64"):
        key_of("whsec_!!")
