"""Messages arrive: at a real mail server and a real web server on this machine, and at Apprise's own web form."""

from __future__ import annotations

import base64
import contextlib
import hmac
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.automation.alerts.sender import Sender
from modelyard.automation.alerts.undelivered import masked
from modelyard.automation.triggers.signature import Unsigned, key_of, sender_id
from modelyard.pipeline.project import run_project
from modelyard.spec import Spec
from modelyard.store import LocalStore, open_store

# Apprise loads a plugin that loads a module which Python 3.13 has no more.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

Make = Callable[..., Spec]

ON = "on: [start, stage, success, failure]"
STEPS = """
def load() -> int:
    return 1


def fit() -> int:
    raise RuntimeError("no luck")
"""


@pytest.fixture
def real(tmp_path: Path) -> Iterator[LocalStore]:
    """A store on the real clock, for real runs."""
    (tmp_path / "project").mkdir(exist_ok=True)
    with open_store(tmp_path / "project") as opened:
        assert isinstance(opened, LocalStore)
        yield opened


def quick(spec: Spec, store: LocalStore) -> Sender:
    """Return a sender that tries again at once."""
    return Sender(spec, store, draw=lambda low, high: 0.02 * high)


def until(done: Callable[[], bool], there: Sender, seconds: float = 60.0) -> None:
    """Take turns until something is so; the time is only what a stuck test may last."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        there.turn(wait=0.02)
    assert done()


def both(web: Any, post: Any, on: str = ON) -> str:
    return f"""
    alerts:
      - {{to: "mailto:ml@example.org", name: mail, {on}}}
      - {{to: "{web.address}", name: hook, {on}}}
    mail: {{host: 127.0.0.1, port: {post.port}, from: yard@example.org}}
    """


def test_start_stage_failure_and_success_of_real_runs_arrive(
    project: Make, real: LocalStore, web: Any, post: Any
) -> None:
    spec = project(both(web, post), steps=STEPS)
    there = quick(spec, real)
    with pytest.raises(Exception, match="no luck"):
        run_project(spec, real)
    spec = project(both(web, post), steps=STEPS.replace('raise RuntimeError("no luck")', "return 2"))
    run_project(spec, real)
    there.drain()
    subjects = [mail["Subject"] for mail in post.mails]
    assert subjects == [body["title"] for body in web.bodies()]
    said = [subject.removeprefix("income: ").partition(" by ")[0].partition(" after ")[0] for subject in subjects]
    assert said[0] == "run started"
    assert said[-1] == "run succeeded"
    assert said.count("run started") == 2
    assert set(said) == {
        "run started",
        "load is done",
        "fit failed: step `fit` raised RuntimeError: no luck",
        "run failed at fit: step `fit` raised RuntimeError: no luck",
        "fit is done",
        "run succeeded",
    }
    assert {a.state for a in real.ledger.alerts()} == {"sent"}
    assert real.ledger.verify() == []


def test_a_mail_says_all_that_is_known(project: Make, real: LocalStore, post: Any, monkeypatch: Any, web: Any) -> None:
    monkeypatch.setenv("MODELYARD_PAGES", "https://ml.example.org/")
    spec = project(both(web, post, "on: failure"), steps=STEPS)
    there = quick(spec, real)
    with pytest.raises(Exception, match="no luck"):
        run_project(spec, real)
    there.drain()
    (mail,) = post.mails
    run = real.ledger.runs()[0]
    (alert, _) = real.ledger.alerts()
    assert mail["From"] == "yard@example.org"
    assert mail["To"] == "ml@example.org"
    assert mail["Message-ID"] == f"<{alert.id}@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Importance"] == "high"
    text = mail.get_body(("plain",)).get_content()
    html = mail.get_body(("html",)).get_content()
    for piece in (run.id, run.trace, "steps.py", "step-failed", f"modelyard replay {run.id} fit"):
        assert piece in text
        assert piece in html
    assert f"page: https://ml.example.org/runs/{run.id}" in text
    assert f'href="https://ml.example.org/runs/{run.id}"' in html


def test_servers_that_were_down_get_everything_once(project: Make, real: LocalStore, web: Any, post: Any) -> None:
    spec = project(both(web, post), steps=STEPS.replace('raise RuntimeError("no luck")', "return 2"))
    there = quick(spec, real)
    web.stop()
    post.stop()
    run_project(spec, real)
    until(lambda: len(list(real.ledger.events(kinds=("alert.failed",)))) >= 6, there)
    assert {a.state for a in real.ledger.alerts()} == {"waiting"}
    web.start()
    post.start()
    until(lambda: {a.state for a in real.ledger.alerts()} == {"sent"}, there)
    subjects = [mail["Subject"].partition(" after ")[0] for mail in post.mails]
    assert sorted(subjects) == sorted(b["title"].partition(" after ")[0] for b in web.bodies())
    assert len(subjects) == len({mail["Message-ID"] for mail in post.mails}) == 4
    # In the order in which it happened.
    assert subjects[0].startswith("income: run started")
    assert subjects[-1] == "income: run succeeded"


@pytest.mark.slow
def test_servers_that_were_down_for_ten_seconds_get_everything_once(
    project: Make, real: LocalStore, web: Any, post: Any
) -> None:
    spec = project(both(web, post), steps=STEPS.replace('raise RuntimeError("no luck")', "return 2"))
    there = Sender(spec, real)
    web.stop()
    post.stop()
    run_project(spec, real)
    back = time.monotonic() + 10
    while time.monotonic() < back:
        there.turn(wait=0.1)
    web.start()
    post.start()
    until(lambda: {a.state for a in real.ledger.alerts()} == {"sent"}, there, 120)
    assert len(post.mails) == len(web.requests) == 4
    assert len({mail["Message-ID"] for mail in post.mails}) == 4


def test_a_target_that_never_answers_holds_up_neither_runs_nor_others(
    project: Make, real: LocalStore, post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.automation.alerts.hook._SECONDS", 600.0)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        # It takes the connection, and says nothing ever.
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        spec = project(
            f"""
            alerts:
              - {{to: "{address}", name: deaf, on: [start, success]}}
              - {{to: "mailto:ml@example.org", name: mail, on: [start, success]}}
            mail: {{host: 127.0.0.1, port: {post.port}}}
            """
        )
        there = quick(spec, real)
        run_project(spec, real)
        until(lambda: len(post.mails) == 2, there)
        # Both mails are there, and a second run went to its end, while the first message still hangs.
        run_project(spec, real)
        until(lambda: len(post.mails) == 4, there)
        # The ledger knows of a mail a moment after its receiver.
        until(lambda: {a.target for a in real.ledger.alerts(states=("waiting",))} == {"deaf"}, there)
        assert list(real.ledger.events(kinds=("alert.failed",))) == []
        assert [run.status for run in real.ledger.runs()] == ["succeeded", "succeeded"]


# -- web


def test_a_request_carries_what_a_receiver_needs(project: Make, real: LocalStore, web: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("ML_SECRET", "whsec_" + base64.b64encode(b"0123456789abcdef").decode())
    spec = project(f"alerts: [{{to: '{web.address}', secret: 'env:ML_SECRET', on: failure}}]", steps=STEPS)
    there = quick(spec, real)
    with pytest.raises(Exception, match="no luck"):
        run_project(spec, real)
    there.drain()
    ((headers, raw),) = web.requests
    (alert,) = real.ledger.alerts()
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == headers["Webhook-Id"] == alert.id
    signed = f"{alert.id}.{headers['Webhook-Timestamp']}.".encode() + raw
    made = base64.b64encode(hmac.digest(b"0123456789abcdef", signed, "sha256")).decode()
    assert headers["Webhook-Signature"] == f"v1,{made}"
    body = msgspec.json.decode(raw)
    run = real.ledger.runs()[0]
    assert body["format"] == 1
    assert (body["on"], body["urgency"], body["project"]) == ("failure", "high", "income")
    assert (body["run"], body["step"], body["trace"]) == (run.id, "fit", run.trace)
    assert body["facts"]["error"] == "step-failed"
    assert body["alerts"] == []


def test_a_trigger_of_another_project_takes_what_is_sent(
    project: Make, store: LocalStore, story: Any, web: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("ML_SECRET", "a secret of sixteen and more")
    there = quick(project(f"alerts: [{{to: '{web.address}', secret: 'env:ML_SECRET', on: start}}]"), store)
    story.start()
    there.drain()
    ((headers, body),) = web.requests
    lower = {name.lower(): value for name, value in headers.items()}
    key = key_of("a secret of sixteen and more")
    assert sender_id("standard", lower, body, [key], time.time()) == store.ledger.alerts()[0].id
    with pytest.raises(Unsigned):
        sender_id("standard", lower, body + b" ", [key], time.time())


def test_a_secret_that_cannot_be_used_is_said(
    project: Make, store: LocalStore, story: Any, web: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("ML_SECRET", "whsec_not base 64")
    there = quick(project(f"alerts: [{{to: '{web.address}', secret: 'env:ML_SECRET', on: start}}]"), store)
    story.start()
    until(lambda: bool(list(store.ledger.events(kinds=("alert.failed",)))), there)
    (failed, *_) = store.ledger.events(kinds=("alert.failed",))
    assert "not base64" in failed.payload["error"]
    assert "base 64" not in failed.payload["error"]


@pytest.mark.parametrize("status", [301, 307, 400, 404, 500])
def test_no_answer_but_2xx_counts(project: Make, store: LocalStore, story: Any, web: Any, status: int) -> None:
    web.answers = [status]
    web.headers = {"Location": web.address}
    spec = project(f"alerts: [{{to: '{web.address}', name: hook, on: start}}]")
    there = quick(spec, store)
    story.start()
    until(lambda: bool(list(store.ledger.events(kinds=("alert.failed",)))), there)
    (failed,) = store.ledger.events(kinds=("alert.failed",))
    assert f"answered {status}" in failed.payload["error"]
    # A redirect was not followed: one request, until it is tried again.
    assert len(web.requests) == 1
    until(lambda: store.ledger.alerts()[0].state == "sent", there)
    assert len({headers["Idempotency-Key"] for headers, _ in web.requests}) == 1


def test_who_asks_to_be_left_alone_is(project: Make, store: LocalStore, story: Any, web: Any, clock: Any) -> None:
    web.answers = [429]
    web.headers = {"Retry-After": "120"}
    spec = project(f"alerts: [{{to: '{web.address}', name: hook, on: start}}]")
    there = Sender(spec, store, clock=clock, draw=lambda low, high: high)
    story.start()
    there.drain()
    (failed,) = store.ledger.events(kinds=("alert.failed",))
    assert failed.payload["next"] == clock.now + 120


def test_a_name_that_leads_to_a_private_address_is_refused(
    project: Make, store: LocalStore, story: Any, web: Any, monkeypatch: Any
) -> None:
    looked: list[str] = []
    real = socket.getaddrinfo

    def lead(host: str, *rest: Any, **more: Any) -> Any:
        looked.append(host)
        return real("127.0.0.1" if host == "hooks.example.org" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lead)
    address = f"http://hooks.example.org:{web.port}/x"
    there = quick(project(f"alerts: [{{to: '{address}', name: hook, on: start}}]"), store)
    story.start()
    until(lambda: bool(list(store.ledger.events(kinds=("alert.failed",)))), there)
    (failed, *_) = store.ledger.events(kinds=("alert.failed",))
    assert "private: true" in failed.payload["error"]
    assert web.requests == []
    assert "hooks.example.org" in looked
    project(f"alerts: [{{to: '{address}', name: hook, on: start, private: true}}]")
    until(lambda: store.ledger.alerts()[0].state == "sent", there)
    assert web.requests[0][0]["Host"] == f"hooks.example.org:{web.port}"


def test_an_address_in_a_variable_is_never_written_down(
    project: Make, store: LocalStore, story: Any, web: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("ML_HOOK", f"http://127.0.0.1:{web.port}/services/T0SECRET1/xyzzy-12345")
    web.answers = [404]
    there = quick(project("alerts: [{to: 'env:ML_HOOK', on: start}]"), store)
    story.start()
    until(lambda: bool(store.ledger.alerts()) and store.ledger.alerts()[0].state == "sent", there)
    assert store.ledger.alerts()[0].target == "ml-hook"
    everything = msgspec.json.encode(list(store.ledger.events())).decode()
    for piece in ("T0SECRET1", "xyzzy", "services", "127.0.0.1"):
        assert piece not in everything


def test_a_variable_that_is_not_set_is_said_and_waited_for(
    project: Make, store: LocalStore, story: Any, web: Any, monkeypatch: Any
) -> None:
    monkeypatch.delenv("ML_HOOK", raising=False)
    there = quick(project("alerts: [{to: 'env:ML_HOOK', on: start}]"), store)
    story.start()
    until(lambda: bool(list(store.ledger.events(kinds=("alert.failed",)))), there)
    (failed, *_) = store.ledger.events(kinds=("alert.failed",))
    assert failed.payload["error"] == "`ML_HOOK` is not set"
    monkeypatch.setenv("ML_HOOK", web.address)
    until(lambda: store.ledger.alerts()[0].state == "sent", there)


# -- mail


def certified(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return the context of a server for 127.0.0.1, and the certificate to trust."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, secret)
    return context, certificate


# The server warns of an attribute of its own.
@pytest.mark.filterwarnings("ignore:Session.login_data")
def test_mail_is_encrypted_and_signed_in_for(
    project: Make, store: LocalStore, story: Any, post: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    from aiosmtpd.smtp import AuthResult, LoginPassword

    context, certificate = certified(tmp_path)
    known: list[Any] = []

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        known.append((session.ssl is not None, data.login, data.password))
        return AuthResult(success=data.password == b"correct-horse", handled=False)

    post.stop()
    post.settings = {"tls_context": context, "require_starttls": True, "authenticator": authenticate}
    post.settings["auth_required"] = True
    post.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.delenv("MODELYARD_SMTP_PASSWORD", raising=False)
    mail = f"mail: {{host: localhost, port: {post.port}, tls: starttls, user: ml@example.org}}"
    there = quick(project("alerts: [{to: 'mailto:a@example.org', on: start}]", more=mail), store)

    def failed() -> list[str]:
        return ["", *(e.payload["error"] for e in store.ledger.events(kinds=("alert.failed",)))]

    story.start()
    until(lambda: failed()[-1].startswith("`MODELYARD_SMTP_PASSWORD` is not set"), there)
    assert known == []
    monkeypatch.setenv("MODELYARD_SMTP_PASSWORD", "battery-staple")
    until(lambda: "does not know the user or the password: 535" in failed()[-1], there)
    monkeypatch.setenv("MODELYARD_SMTP_PASSWORD", "correct-horse")
    until(lambda: store.ledger.alerts()[0].state == "sent", there)
    assert known[-1] == (True, b"ml@example.org", b"correct-horse")
    assert post.mails[0]["From"] == "ml@example.org"
    assert "correct-horse" not in "".join(failed())


def test_a_certificate_that_nobody_vouches_for_is_refused(
    project: Make, store: LocalStore, story: Any, tmp_path: Path
) -> None:
    context, _ = certified(tmp_path)
    heard: list[bytes] = []

    def serve(server: socket.socket) -> None:
        # Not aiosmtpd, which leaves a connection open whose encryption failed.
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"220 here\r\n")
                    connection.recv(1000)
                    connection.sendall(b"250-here\r\n250 STARTTLS\r\n")
                    connection.recv(1000)
                    connection.sendall(b"220 go\r\n")
                    with context.wrap_socket(connection, server_side=True) as safe:
                        heard.append(safe.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        mail = f"mail: {{host: localhost, port: {server.getsockname()[1]}, tls: starttls}}"
        there = quick(project("alerts: [{to: 'mailto:a@example.org', on: start}]", more=mail), store)
        story.start()
        until(lambda: bool(list(store.ledger.events(kinds=("alert.failed",)))), there)
        server.shutdown(socket.SHUT_RDWR)
    (failed, *_) = store.ledger.events(kinds=("alert.failed",))
    assert "CERTIFICATE_VERIFY_FAILED" in failed.payload["error"]
    assert b"".join(heard) == b""


def test_readers_that_are_refused_are_said_and_nobody_gets_it_twice(
    project: Make, store: LocalStore, story: Any, post: Any
) -> None:
    post.refused = {"gone@example.org"}
    mail = f"mail: {{host: 127.0.0.1, port: {post.port}}}"
    to = "mailto:gone@example.org, here@example.org"
    there = quick(project(f"alerts: [{{to: '{to}', name: team, on: start}}]", more=mail), store)
    story.start()
    there.drain()
    assert post.envelopes[0].rcpt_tos == ["here@example.org"]
    (sent,) = store.ledger.events(kinds=("alert.sent",))
    assert sent.payload["note"] == "refused for 1 of 2 addresses"
    post.refused |= {"here@example.org"}
    story.start("run-2")
    until(lambda: bool(list(store.ledger.events(kinds=("alert.failed",)))), there)
    (failed, *_) = store.ledger.events(kinds=("alert.failed",))
    assert failed.payload["error"].startswith("the server takes mail for nobody of them: 550")
    assert "example" not in failed.payload["error"]


# -- what messages may not do


NASTY = (
    "boom\r\nBcc: all@example.org\r\n\r\n<script>alert(1)</script> & @everyone <!channel> "
    "password=hunter2secret token='sk-abcdefghijklmnop1234' \u202etxt \x1b[31mred"
)


def test_an_error_gets_nothing_into_headers_html_or_chats(
    project: Make, store: LocalStore, story: Any, web: Any, post: Any
) -> None:
    there = quick(project(both(web, post, "on: failure")), store)
    story.fail(message=NASTY)
    there.drain()
    (mail,) = post.mails
    assert mail["Bcc"] is None
    assert "\n" not in mail["Subject"]
    assert post.envelopes[0].rcpt_tos == ["ml@example.org"]
    html = mail.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    everything = msgspec.json.encode(list(store.ledger.events(kinds=("alert.queued",)))).decode()
    for text in (post.envelopes[0].content.decode(), web.requests[0][1].decode(), everything):
        assert "hunter2" not in text
        assert "sk-abcdef" not in text
        for mark in ("\u202e", "\x1b", "\\u202e", "\\u001b"):
            assert mark not in text


def test_a_chat_gets_the_short_form_and_pings_nobody(project: Make, store: LocalStore, story: Any, web: Any) -> None:
    spec = project(f"alerts: [{{to: 'json://127.0.0.1:{web.port}/x', name: chat, on: failure}}]")
    there = quick(spec, store)
    story.fail(message=NASTY)
    there.drain()
    (body,) = web.bodies()
    assert body["title"].startswith("income: run failed at fit: boom Bcc: all@example.org")
    assert body["type"] == "failure"
    text = body["title"] + body["message"]
    assert "@everyone" not in text
    assert "<!channel" not in text
    assert "hunter2" not in text
    assert "run-1" in body["message"]
    assert store.ledger.alerts()[0].state == "sent"


def test_what_a_chat_says_shows_no_address(project: Make, store: LocalStore, story: Any, web: Any) -> None:
    web.answers = [500]
    spec = project(f"alerts: [{{to: 'json://127.0.0.1:{web.port}/some-long-path', name: chat, on: start}}]")
    there = quick(spec, store)
    story.start()
    until(lambda: bool(list(store.ledger.events(kinds=("alert.failed",)))), there)
    (failed, *_) = store.ledger.events(kinds=("alert.failed",))
    assert "the chat did not take it" in failed.payload["error"]
    assert "500" in failed.payload["error"]
    assert "some-long-path" not in failed.payload["error"]


def test_pieces_of_an_address_are_masked() -> None:
    said = masked(
        "cannot reach ml@example.org via smtp.example.org: pass%2Fword9 pass/word9", "ml@example.org", "pass%2Fword9"
    )
    assert said == "cannot reach [redacted] via smtp.[redacted]: [redacted] [redacted]"


def test_no_thread_is_left_that_keeps_the_process(project: Make, store: LocalStore, story: Any, taken: Any) -> None:
    there = Sender(project("alerts: [{to: 'mailto:a@example.org', on: start}]"), store, make=lambda: taken)
    story.start()
    there.drain()
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("to "))
