"""A configuration of nginx that spreads requests over several replicas.

Directives are those of nginx 1.15.3 or newer (https://nginx.org/en/docs/dirindex.html). A POST that a replica may have
seen is never sent to another one: nginx does that only where `non_idempotent` allows it, which stands nowhere here. One
that could not even be sent is.

What nginx has to refuse itself it refuses as the servers do. Only that: `proxy_intercept_errors` stays off, so what a
replica says goes through as it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from modelyard._kit.errors import ServeError
from modelyard.serving.errors import HttpError, body_of, body_too_large, headers_too_large, not_http
from modelyard.serving.http.heads import MOUNT
from modelyard.serving.limits import Limits

__all__ = ["address", "config"]

_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
# Nothing that ends a quoted word of nginx, or is a variable in one.
_PATH = re.compile(r"/[^\x00-\x1f\x7f\"'\\$;{}]*")
# A replica that failed so often within so long is left out for as long.
_FAILS, _FAIL_SECONDS = 2, 5
_CONNECT_SECONDS = 1

_TOP = """\
# Written by `modelyard nginx`. Include it in the block `http` of nginx.conf, for example as a file of conf.d.

# The id of a request: its caller's, where that can stand in JSON as it is.
map $http_x_request_id $modelyard_id {{
    default $request_id;
    "~^[!#-[\\]-~]{{1,128}}$" $http_x_request_id;
}}

# What is said by nginx itself, in the form of the servers.
map $status $modelyard_error {{
{errors}
}}
map $status $modelyard_error_v2 {{
{errors_v2}
}}
map $request_uri $modelyard_answer {{
    default $modelyard_error;
    "~^({mount}[^/]+)?/v2" $modelyard_error_v2;
}}
"""

_SAID = """\
    # 494: too large headers; 497: plain HTTP where TLS is spoken.
    error_page 400 404 405 413 429 500 502 503 504 /.modelyard/error;
    error_page 414 431 494 =431 /.modelyard/error;
    error_page 497 501 505 =400 /.modelyard/error;
    location = /.modelyard/error {
        internal;
        default_type application/json;
        add_header X-Request-Id $modelyard_id always;
        return 200 $modelyard_answer;
    }
"""

_HTTP = """
upstream modelyard_http {{
    zone modelyard_http 128k;
    # The replica with the fewest requests under way is next, so a slow one gets fewer.
    least_conn;
{replicas}
    keepalive 64;
    keepalive_requests 1000000;
    # Less than the replicas wait, so that none of them closes a connection that is about to be used.
    keepalive_timeout {idle}s;
}}

server {{
    listen {listen}{ssl};
    server_tokens off;
    access_log off;
{tls}    client_max_body_size {body};
    client_body_buffer_size 1m;
    client_header_timeout {header}s;
    client_body_timeout {total}s;
    large_client_header_buffers 4 {headers}k;
    keepalive_requests 1000000;

{said}
    # Each replica is asked for its own.
    location = /metrics {{
        return 404;
    }}
    location ~ ^/models/[^/]+/metrics$ {{
        return 404;
    }}

    location / {{
        proxy_pass http://modelyard_http;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        # Tells the replicas that somebody asks through a proxy. X-Request-Id and the token go through as they are.
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_connect_timeout {connect}s;
        proxy_send_timeout {total}s;
        proxy_read_timeout {total}s;
        # What a replica may have seen is not sent to another: a POST goes on only where it could not be sent at all.
        proxy_next_upstream error timeout;
        proxy_next_upstream_tries 3;
        proxy_next_upstream_timeout {total}s;
        proxy_buffering on;
        proxy_buffers 16 64k;
    }}
}}
"""

_GRPC = """
upstream modelyard_grpc {{
    zone modelyard_grpc 128k;
    least_conn;
{replicas}
    keepalive 64;
    keepalive_requests 1000000;
    keepalive_timeout {idle}s;
}}

server {{
    listen {listen}{ssl} http2;
    server_tokens off;
    access_log off;
{tls}    # A stream may hold any number of messages; the replicas limit each of them.
    client_max_body_size 0;
    client_header_timeout {header}s;

{said}
    location / {{
        grpc_pass grpc://modelyard_grpc;
        grpc_connect_timeout {connect}s;
        grpc_send_timeout {total}s;
        grpc_read_timeout {total}s;
        grpc_next_upstream error timeout;
        grpc_next_upstream_tries 3;
        grpc_set_header X-Forwarded-For $remote_addr;
    }}
}}
"""

_TLS = """\
    ssl_certificate "{cert}";
    ssl_certificate_key "{key}";
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:modelyard:1m;
"""


def address(given: str) -> str:
    """Return `HOST:PORT` as nginx writes it.

    >>> address("10.0.0.1:8080"), address("[::1]:80"), address("replica-1.internal:8080")
    ('10.0.0.1:8080', '[::1]:80', 'replica-1.internal:8080')

    Raises:
        ServeError: It is none (`nginx-address`).
    """
    host, _, port = given.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    good = port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536
    # nginx knows no zones of IPv6, and Python takes anything for one.
    good = good and "%" not in host
    try:
        shown = f"[{ipaddress.IPv6Address(bare)}]" if bare != host else str(ipaddress.IPv4Address(host))
    except ValueError:
        # Digits and dots alone are an address that is wrong, not a name.
        good = good and bool(_NAME.fullmatch(host)) and not re.fullmatch(r"[0-9.]+", host)
        shown = host
    if not good:
        raise ServeError(
            "nginx-address", f"`{given[:80]}` is no address of a replica", hint="write HOST:PORT, as in 10.0.0.1:8080"
        )
    return f"{shown}:{int(port)}"


def config(
    replicas: Sequence[str],
    *,
    listen: str,
    grpc: Sequence[str] = (),
    grpc_listen: str = "",
    cert: Path | None = None,
    key: Path | None = None,
    limits: Limits | None = None,
) -> str:
    """Return the configuration.

    Args:
        replicas: Addresses of the servers, `HOST:PORT`.
        listen: Where nginx listens.
        grpc: Addresses on which they answer gRPC, if they do.
        grpc_listen: Where nginx listens for it.
        cert: Certificate of nginx in PEM; none: it speaks plain HTTP.
        key: Its private key.
        limits: Limits of the servers; nginx waits a little longer and takes as much.

    Raises:
        ServeError: An address or a path cannot be used, or one is given twice.
    """
    limits = limits or Limits()
    if (cert is None) is not (key is None):
        raise ServeError("tls-unusable", "TLS needs a certificate and its key", hint="give --tls-cert and --tls-key")
    tls = "" if cert is None or key is None else _TLS.format(cert=_path(cert), key=_path(key))
    shared = {
        "tls": tls,
        "ssl": " ssl" if tls else "",
        "idle": max(1, limits.keep_alive - 10),
        "header": int(limits.header_seconds),
        # A little longer than the replicas, which say themselves why they give up.
        "total": int(limits.total_seconds) + 5,
        "connect": _CONNECT_SECONDS,
        "said": _SAID,
    }
    text = _TOP.format(errors=_errors(limits, v2=False), errors_v2=_errors(limits, v2=True), mount=MOUNT.decode())
    text += _HTTP.format(
        replicas=_servers(replicas),
        listen=address(listen),
        body=limits.body,
        headers=-(-limits.header // 1024),
        **shared,
    )
    if grpc:
        if address(grpc_listen) == address(listen):
            message = f"`{address(listen)}` is given twice"
            raise ServeError("nginx-address", message, hint="give HTTP and gRPC a port each: --listen, --grpc-listen")
        text += _GRPC.format(replicas=_servers(grpc), listen=address(grpc_listen), **shared)
    return text


def _servers(replicas: Sequence[str]) -> str:
    shown = [address(one) for one in replicas]
    if twice := next((one for one in shown if shown.count(one) > 1), ""):
        raise ServeError("nginx-address", f"`{twice}` is given twice", hint="name each replica once")
    return "\n".join(f"    server {one} max_fails={_FAILS} fail_timeout={_FAIL_SECONDS}s;" for one in shown)


def _errors(limits: Limits, *, v2: bool) -> str:
    """Return what is said for each status, as the lines of a map."""
    said = {
        "default": HttpError(500, "internal", "the request could not be handed on"),
        "400": not_http(),
        "404": HttpError(404, "route-not-found", "there is nothing at this address"),
        "405": HttpError(405, "method-not-allowed", "this address does not take the method"),
        "413": body_too_large(limits.body),
        "429": HttpError(429, "too-many-requests", "this is too much at once; try again"),
        "431": headers_too_large(limits.header),
        "502": HttpError(502, "replica-away", "no server gave an answer; try again"),
        "503": HttpError(503, "not-ready", "no requests are taken at the moment"),
        "504": HttpError(504, "replica-late", "no server answered in time"),
    }
    return "\n".join(f"    {at} '{body_of(error, '$modelyard_id', v2=v2).decode()}';" for at, error in said.items())


def _path(path: Path) -> str:
    text = str(path.absolute())
    if not _PATH.fullmatch(text):
        raise ServeError(
            "nginx-path", f"`{text}` cannot stand in a configuration of nginx", hint="use a path without quotes or `$`"
        )
    return text
