"""Who asks: tokens of an identity provider, client certificates, browsers; each against the real thing made here."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from modelyard._kit.errors import ServeError, UserError
from modelyard.security.jwt import Issuer, fetch
from modelyard.security.roles import MATRIX, ROLES
from modelyard.serving.errors import HttpError
from modelyard.serving.http.tls import Tls
from modelyard.serving.limits import Days
from modelyard.serving.models import Models
from modelyard.serving.routes import ROUTES, Route

from .authority import Authority  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .conftest import Server  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .test_matrix import BODIES, DECLARED, OPEN, ROW, filled  # noqa: TID252

Fresh = Callable[..., Server]


class Provider:
    """An identity provider on the loopback, with keys of its own."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {
            "rsa": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
            "ec": ECKey.generate_key("P-256", {"kid": "ec"}),
        }
        self.asked: list[str] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                jwks = {"keys": [key.as_dict(private=False) for key in provider.keys.values()]}
                # A key that is not for this must not be taken for one.
                jwks["keys"].append({"kty": "oct", "kid": "oct", "k": "c2VjcmV0" * 8})
                found = {
                    "/.well-known/openid-configuration": {"issuer": provider.url, "jwks_uri": f"{provider.url}/keys"},
                    "/keys": jwks,
                }.get(self.path)
                self.send_response(200 if found else 404)
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def token(self, key: str = "rsa", alg: str = "RS256", head: dict[str, Any] | None = None, **claims: Any) -> str:
        now = int(time.time())
        body = {"iss": self.url, "aud": "ours", "sub": "ann", "exp": now + 600, "roles": ["analyst"], **claims}
        body = {name: value for name, value in body.items() if value is not None}
        return jwt.encode({"alg": alg, "kid": key, **(head or {})}, body, self.keys[key], algorithms=[alg])


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


def policy(**access: Any) -> tuple[str, str]:
    return "--policy", json.dumps({"access": access})


def issuer(provider: Provider, **settings: Any) -> Issuer:
    made = Issuer(provider.url, "ours", **settings)
    made.refresh()
    assert not made.trouble
    return made


def test_who_is_let_in(provider: Provider) -> None:
    ours = issuer(provider)
    for text in (provider.token(), provider.token("ec", "ES256"), provider.token(aud=["x", "ours"])):
        caller = ours.find(text)
        assert caller is not None
        assert (caller.name, caller.role) == ("oidc:ann", "analyst")
    both = ours.find(provider.token(roles=["viewer", "admin", "x"]))
    assert both is not None
    assert both.role == "admin"
    nested = issuer(provider, role_claim="realm.roles", roles={"ml": "operator"})
    found = nested.find(provider.token(realm={"roles": ["ml", "admin"]}))
    assert found is not None
    assert found.role == "operator"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_who_is_not(provider: Provider) -> None:
    ours, now = issuer(provider), int(time.time())
    good = provider.token()
    head, body, signature = good.split(".")
    public = provider.keys["rsa"].as_pem(private=False)
    # The public key of the issuer, taken for the secret of an HMAC.
    confused = jwt.encode({"alg": "HS256", "kid": "rsa"}, json.loads(base64.urlsafe_b64decode(body + "==")),
                          OctKey.import_key(b64(public)), algorithms=["HS256"])  # fmt: skip
    unsigned = b64(b'{"alg":"none","kid":"rsa"}')
    stranger = RSAKey.generate_key(2048)
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    raised = b64(json.dumps({**claims, "roles": ["admin"]}).encode())
    wrong = {
        "other audience": provider.token(aud="theirs"),
        "no audience": provider.token(aud=None),
        "other issuer": provider.token(iss="https://evil.example"),
        "ended": provider.token(exp=now - 120),
        "no end": provider.token(exp=None),
        "not yet": provider.token(nbf=now + 600),
        "no role": provider.token(roles=["nothing"]),
        "no name": provider.token(sub=None),
        "unsigned": f"{unsigned}.{body}.",
        "hmac": confused,
        "own key": jwt.encode({"alg": "RS256", "kid": "rsa"}, claims, stranger, algorithms=["RS256"]),
        "secret key": jwt.encode({"alg": "HS256", "kid": "oct"}, claims, OctKey.import_key("c2VjcmV0" * 8)),
        "changed": f"{head}.{raised}.{signature}",
        "cut": good[:-5],
        "nothing": "..",
        "text": "a.b.c",
        "large": good + "A" * 20_000,
    }
    for name, text in wrong.items():
        assert ours.find(text) is None, name
    assert ours.find(good) is not None
    assert ours.find(provider.token(exp=now - 20)) is not None, "clocks differ a little"


def test_a_token_ends_although_it_is_remembered(provider: Provider) -> None:
    now = [time.time()]
    ours = issuer(provider, clock=lambda: now[0])
    text = provider.token()
    assert ours.find(text) is not None
    now[0] += 700
    assert ours.find(text) is None


def test_a_new_key_is_fetched_once(provider: Provider) -> None:
    ours = Issuer(provider.url, "ours")
    ours.start()
    try:
        provider.keys["new"] = ECKey.generate_key("P-256", {"kid": "new"})
        text = provider.token("new", "ES256")
        until = time.monotonic() + 10
        while ours.find(text) is None and time.monotonic() < until:
            time.sleep(0.02)
        assert ours.find(text) is not None
        before = len(provider.asked)
        for at in range(50):
            assert ours.find(provider.token(head={"kid": f"made-up-{at}"})) is None
        assert len(provider.asked) == before
    finally:
        del provider.keys["new"]
        ours.close()


def test_only_safe_addresses() -> None:
    for url in ("http://example.org", "file:///etc/passwd", "ftp://localhost/x"):
        with pytest.raises(ValueError, match="not https"):
            fetch(url)
        with pytest.raises(UserError, match="oidc-issuer"):
            Issuer(url, "ours")
    lost = Issuer("http://127.0.0.1:9", "ours")
    lost.refresh()
    assert lost.trouble


def test_roles_of_a_provider_on_every_route(provider: Provider, fresh: Fresh) -> None:
    server = fresh(None, *policy(oidc={"issuer": provider.url, "audience": "ours"}))
    walk(server, lambda role: {"headers": {"authorization": f"Bearer {provider.token(roles=[role])}"}})
    with server.client("") as client:
        client.headers["authorization"] = f"Bearer {provider.token(aud='x')}"
        assert client.get("/v2").status_code == 401
    with server.client("viewer") as client:
        assert client.get("/v2").status_code == 200


def ask(client: httpx.Client, route: Route, version: str) -> httpx.Response:
    path = filled(route.path, version)
    body = {"json": BODIES.get(path.rpartition("/")[2], {})} if route.method == "POST" else {}
    return client.request(route.method, path, **body)


def walk(server: Server, settings: Callable[[str], dict[str, Any]]) -> None:
    """Ask for every route as every role, and hold what comes back against the matrix."""
    given = settings("admin")
    with httpx.Client(base_url=server.url, timeout=20, **{"verify": False, **given}) as client:
        version = client.get("/v2/models/credit").json()["versions"][0]
    for role in ROLES:
        given = settings(role)
        with httpx.Client(base_url=server.url, timeout=20, **{"verify": False, **given}) as client:
            for route in ROUTES:
                expect(ask(client, route, version), route, role)


def expect(answer: httpx.Response, route: Route, role: str) -> None:
    may = DECLARED[f"{route.method} {route.path}"] == OPEN or role in MATRIX[route.action or "read"]
    # What is not supported here is refused to those only who may do it.
    assert answer.status_code in ((200, 400) if may else (403,)), (route.path, role, answer.text)
    assert may or "role-denied" in answer.text


def context(ca: Authority, client: tuple[str, str] | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(ca.path))
    made.check_hostname = False
    if client:
        made.load_cert_chain(*client)
    return made


def test_client_certificates_on_every_route(tmp_path: Path, fresh: Fresh) -> None:
    ca, strangers = Authority(tmp_path, "ca"), Authority(tmp_path, "strangers")
    cert, key = ca.sign("server")
    names = {f"CN=job-{role},O=Own\\, Ltd": role for role in ROLES}
    tls = ("--tls-cert", cert, "--tls-key", key, "--client-ca", str(ca.path))
    server = fresh(None, *tls, *policy(certificates=names))
    assert server.url.startswith("https://")
    walk(server, lambda role: {"verify": context(ca, ca.sign(f"job-{role}")), "headers": {}})
    for client in (None, strangers.sign("job-admin", "false")):
        with (
            pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)),
            httpx.Client(base_url=server.url, verify=context(ca, client)) as asking,
        ):
            asking.get("/v2/health/live")
    with httpx.Client(base_url=server.url, verify=context(ca, ca.sign("nobody"))) as asking:
        assert asking.get("/v2").status_code == 401
    with httpx.Client(base_url=server.url, verify=context(ca, ca.sign("job-admin"))) as asking:
        # A token that is given decides alone, and a head that a certificate let in lets in nobody else.
        assert asking.get("/v2", headers={"authorization": "Bearer wrong"}).status_code == 401
        for _ in range(3):
            assert asking.get("/stats").status_code == 200
    with httpx.Client(base_url=server.url, verify=context(ca, ca.sign("job-viewer"))) as asking:
        assert asking.get("/stats").status_code == 403


def test_a_page_is_not_let_in_by_the_certificate_of_a_browser(tmp_path: Path, fresh: Fresh) -> None:
    """A browser shows its certificate for whatever page sends something here, and no preflight asks before."""
    ca, ours = Authority(tmp_path, "ca"), "https://app.example.org"
    cert, key = ca.sign("server")
    tls = ("--tls-cert", cert, "--tls-key", key, "--client-ca", str(ca.path))
    server = fresh(None, *tls, *policy(certificates={"CN=boss,O=Own\\, Ltd": "operator"}, cors=[ours]))
    paths = ("/predict", "/v2/repository/models/credit/unload", "/v2/repository/models/credit/load")
    with httpx.Client(base_url=server.url, verify=context(ca, ca.sign("boss"))) as asking:
        # Neither is one of an allowed origin: as with a password, it has a token.
        for origin in ("https://evil.example", "null", server.url, ours):
            page = {"origin": origin, "content-type": "text/plain"}
            for path in paths:
                refused = asking.post(path, content=json.dumps(ROW), headers=page)
                assert (refused.status_code, "token-missing" in refused.text) == (401, True), (origin, path)
            token = {"authorization": f"Bearer {server.tokens['analyst']}"}
            assert asking.post("/predict", json=ROW, headers={"origin": origin, **token}).status_code == 200
        assert asking.get("/v2/models/credit/ready").status_code == 200
        # Without a page it is let in; a server of one bundle unloads nothing.
        assert [asking.post(path).status_code for path in paths[1:]] == [400, 200]
        assert asking.post("/predict", json=ROW).status_code == 200


def test_tls_reads_a_changed_certificate(tmp_path: Path, fresh: Fresh) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    cert, key = first.sign("server")
    server = fresh(None, "--tls-cert", cert, "--tls-key", key)
    with httpx.Client(base_url=server.url, verify=context(first)) as client:
        assert client.get("/v2/health/live").status_code == 200
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        second.sign("server")
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                with httpx.Client(base_url=server.url, verify=context(second)) as new:
                    assert new.get("/v2/health/live").status_code == 200
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        else:
            raise AssertionError("the new certificate is not shown")
        assert client.get("/v2/health/live").status_code == 200, "an open connection goes on"


@pytest.mark.parametrize("flags", [("cert",), ("cert", "key"), ("client_ca",)])
def test_tls_that_cannot_be_used_serves_nothing(tmp_path: Path, fresh: Fresh, flags: tuple[str, ...]) -> None:
    cert, _ = Authority(tmp_path, "ca").sign("server")
    names = {"cert": "--tls-cert", "key": "--tls-key", "client_ca": "--client-ca"}
    with pytest.raises(AssertionError, match="tls-unusable"):
        fresh(None, *(part for flag in flags for part in (names[flag], cert)))


def test_the_file_of_tls_that_is_not_there_is_named(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path, "ca").sign("server")
    with pytest.raises(ServeError, match=r"no\.key` is not there") as missing:
        Tls(Path(cert), tmp_path / "no.key")
    assert missing.value.problem.where == str(tmp_path / "no.key")
    Path(key).write_text("no key")
    with pytest.raises(ServeError, match="is no PEM") as wrong:
        Tls(Path(cert), Path(key))
    assert "_ssl.c" not in str(wrong.value)


def test_pages_of_allowed_origins_only(fresh: Fresh) -> None:
    ours, theirs = "https://app.example.org", "https://evil.example"
    server = fresh(None, *policy(cors=[ours]))
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with server.client("") as client:
        answer = client.options("/predict", headers={**asks, "origin": ours})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == ours
        assert "authorization" in answer.headers["access-control-allow-headers"]
        # All that a caller may say in a header; a browser sends no other.
        named = set(answer.headers["access-control-allow-headers"].split(", "))
        assert {"x-canary-key", "x-model", "x-request-id", "traceparent"} <= named
        assert answer.headers["access-control-allow-methods"] == "POST"
        for headers in ({**asks, "origin": theirs}, {"origin": ours}, asks):
            assert client.options("/predict", headers=headers).status_code == 401
        assert client.options("/nothing", headers={**asks, "origin": ours}).status_code == 401
    with server.client() as client:
        for _ in range(2):
            answer = client.post("/predict", json=ROW, headers={"origin": ours})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ours)
            assert answer.headers["vary"] == "origin"
            answer = client.post("/predict", json=ROW, headers={"origin": theirs})
            assert "access-control-allow-origin" not in answer.headers


def test_no_origin_is_allowed_unless_declared(served: Server) -> None:
    with served.client() as client:
        asks = {"origin": "https://app.example.org", "access-control-request-method": "POST"}
        assert client.options("/predict", headers=asks).status_code == 405
        assert "access-control-allow-origin" not in client.post("/predict", json=ROW, headers=asks).headers


def test_metrics_open_on_this_machine_only_where_declared(fresh: Fresh) -> None:
    server = fresh(None, *policy(metrics="loopback"))
    with server.client("") as client:
        for _ in range(2):
            assert client.get("/metrics").status_code == 200
            assert client.get("/stats").status_code == 401
            assert client.get("/metrics", headers={"x-forwarded-for": "1.2.3.4"}).status_code == 401
        assert client.get("/metrics", headers={"authorization": "Bearer x"}).status_code == 401


def test_a_day_has_so_many_rows(fresh: Fresh) -> None:
    server = fresh(None, *policy(per_day=5))
    with server.client() as client:
        answers = [client.post("/predict", json={"rows": [ROW] * rows}) for rows in (3, 3, 2, 1)]
        assert [answer.status_code for answer in answers] == [200, 429, 200, 429]
        errors = [answers[at].json()["error"] for at in (1, 3)]
        assert {error["code"] for error in errors} == {"budget-exceeded"}
        assert "2 rows more" in errors[0]["message"]
        assert 0 < int(answers[-1].headers["retry-after"]) <= 86_400
        assert client.get("/v2").status_code == 200
        # Whatever the protocol.
        assert client.post("/invocations", json={"dataframe_records": [ROW]}).status_code == 429
    with server.client("admin") as client:
        assert client.post("/predict", json=ROW).status_code == 200


def test_what_cannot_be_read_counts_nothing(fresh: Fresh) -> None:
    server = fresh(None, *policy(per_day=2))
    with server.client() as client:
        assert client.post("/predict", json={"rows": [{"no": 1}] * 2}).status_code == 400
        headers = {"x-model": "challenger"}
        assert client.post("/predict", json={"rows": [ROW] * 2}, headers=headers).status_code in (400, 403)
        too_many = client.post("/predict", json={"rows": [ROW] * 3})
        assert (too_many.status_code, too_many.json()["error"]["code"]) == (413, "rows-too-many")
        assert "retry-after" not in too_many.headers
        assert client.post("/predict", json={"rows": [ROW] * 2}).status_code == 200
        # Nobody reads a body any more.
        assert client.post("/predict", content=b"{").status_code == 429


def test_versions_that_come_later_count_for_the_same_day() -> None:
    def version(digest: str) -> Any:
        made = Mock(endpoint="credit", killed=False, batcher=Mock(waiting=0, busy=False))
        made.version.digest = digest
        return made

    models = Models(version("a" * 64))
    days = Days(5)
    models.bound(days)
    models.put(version("b" * 64))
    assert [service.days for service in models] == [days, days]


def test_days_begin_anew() -> None:
    now = [86_400.0 * 3 + 86_399]
    days = Days(2, clock=lambda: now[0])
    days.take("a", 2)
    days.take("b", 1)
    for asked in (lambda: days.check("a"), lambda: days.take("a", 1), lambda: days.take("b", 2)):
        with pytest.raises(HttpError) as told:
            asked()
        assert told.value.code == "budget-exceeded"
        assert told.value.headers == ((b"retry-after", b"2"),)
    days.check("b")
    now[0] += 1
    days.take("a", 2)
