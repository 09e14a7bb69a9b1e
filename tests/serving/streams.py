"""Byte streams that callers, wrong ones and attackers send: made by a seed, so that each can be sent again."""

from __future__ import annotations

from random import Random

__all__ = ["cuts", "message", "stream"]

TARGETS = (
    b"/ping", b"/predict", b"/predict/later", b"/other", b"http://x/predict", b"/predict?a=b", b"//predict", b"*",
    b"/%2e%2e/predict", b"/\xff", b"x:1", b"/a b",
)  # fmt: skip
METHODS = (b"POST", b"POST", b"POST", b"GET", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"LINK", b"UNLINK", b"post", b"")
TOKENS = (b"good", b"good", b"good", b"other", b"bad")
# One of these makes most requests wrong, and each is read in two ways by somebody.
ODD = (
    b"content-length: 5", b"content-length: +5", b"content-length: 005", b"content-length: -1",
    b"content-length: 5, 5", b"content-length: 0x5", b"content-length:", b"content-length: 5 ",
    b"content-length: 18446744073709551616", b"content-length : 5", b"Content-Length: 0", b"content_length: 5",
    b"transfer-encoding: chunked", b"transfer-encoding: Chunked", b"transfer-encoding: gzip, chunked",
    b"transfer-encoding: chunked, identity", b"transfer-encoding: identity", b"transfer-encoding: xchunked",
    b"transfer-encoding:\x0bchunked", b"transfer-encoding : chunked", b"transfer-encoding: \"chunked\"",
    b"expect: 100-continue", b"expect: 200", b"connection: close", b"connection: keep-alive",
    b"connection: Keep-Alive, x", b"connection: upgrade\r\nupgrade: h2c", b"connection: close, content-length",
    b"x: a\r\n b", b" x: y", b"x: a\nb: c", b"x: a\rb", b"x: \x00", b"x", b": x", b"x-request-id: mine",
    b"x-request-id: mine\r\nx-request-id: yours", b"authorization: Bearer other", b"x: GET /ping HTTP/1.1",
    b"x: \xc3\xa9", b"origin: https://page.example", b"host: two", b"upgrade: h2c",
)  # fmt: skip
VERSIONS = (b"HTTP/1.1",) * 12 + (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"")


def head(rng: Random, odd: float) -> bytes:
    """Return a line and headers, without the length of a body."""
    usual = rng.random() > odd
    method = rng.choice(METHODS[:4] if usual else METHODS)
    target = rng.choice(TARGETS[:4] if usual else TARGETS)
    lines = [b"%s %s %s" % (method, target, b"HTTP/1.1" if usual else rng.choice(VERSIONS)), b"host: x"]
    if rng.random() < 0.8:
        lines.append(b"authorization: Bearer " + rng.choice(TOKENS))
    if not usual:
        lines[rng.randint(1, len(lines)) :] = rng.sample(ODD, rng.choice((1, 1, 1, 2, 3)))
    return b"\r\n".join(lines)


def chunked(rng: Random, body: bytes, odd: float) -> bytes:
    """Return a body in chunks, now and then as nobody should write them."""
    at, parts = 0, []
    wrong = rng.random() < odd
    while at < len(body):
        size = rng.randint(1, len(body) - at)
        shown = b"%x" % size
        if wrong:
            shown = rng.choice(
                (shown, b"0%s" % shown, b"%s;a=b" % shown, b'%s;a="\r\n"' % shown, b" %s" % shown, b"%s " % shown,
                 b"-1", b"0x%s" % shown, b"f" * 16, b"f" * 17, b"%s\n" % shown, b"+%s" % shown, b"", b"%x" % (size + 1))
            )  # fmt: skip
        end = b"\r\n" if not wrong or rng.random() < 0.8 else rng.choice((b"\n", b"\r", b"", b"\r\n\r\n"))
        parts.append(shown + b"\r\n" + body[at : at + size] + end)
        at += size
    last = rng.choice((b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"0\r\nauthorization: Bearer good\r\n\r\n", b"00\r\n\r\n"))
    return b"".join(parts) + (last if wrong else b"0\r\n\r\n")


def message(rng: Random, known: list[bytes], odd: float = 0.3) -> bytes:
    """Return one request: often one that was sent before, or inside of another one, with the same or another body."""
    kind = rng.random()
    if known and kind < 0.35:
        return rng.choice(known)
    if known and kind < 0.45:
        # Cut before the value of the header, the rest is a request.
        return head(rng, 0.0) + b"\r\nx: " + rng.choice(known)
    if known and kind < 0.5:
        body = b"!" + head(rng, 0.0) + b"\r\nx: "
        return b"GET /ping HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body + rng.choice(known)
    if known and kind < 0.6:
        start, _, rest = rng.choice(known).partition(b"\r\n\r\n")
        return start + b"\r\n\r\n" + rest + rng.choice((b"!", b"\r\n", b"GET", b"hello"))
    made = _new(rng, odd)
    known.append(made)
    return made


def _new(rng: Random, odd: float) -> bytes:
    start = head(rng, odd)
    body = rng.choice((b"", b"hello", b"{}", b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n\r\n", b"0\r\n\r\n"))
    kind = rng.random()
    if kind < 0.15:
        return start + b"\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(rng, body, odd)
    if kind < 0.4 and not body:
        return start + b"\r\n\r\n"
    told = len(body) if rng.random() > odd / 3 else max(0, len(body) + rng.choice((-3, -1, 1, 5)))
    made = start + b"\r\ncontent-length: %d\r\n\r\n" % told + body
    if rng.random() < odd / 4:
        at = rng.randrange(len(made))
        made = made[:at] + bytes((rng.randrange(256),)) * rng.choice((0, 1, 2)) + made[at + 1 :]
    return made


def stream(rng: Random, known: list[bytes], odd: float = 0.3) -> list[bytes]:
    """Return the requests that one connection sends."""
    return [message(rng, known, odd) for _ in range(rng.choice((1, 2, 3, 6)))]


def cuts(rng: Random, messages: list[bytes]) -> list[bytes]:
    """Return the same bytes as they may arrive: by request, all at once, or cut anywhere."""
    kind = rng.random()
    if kind < 0.4:
        return [one for one in messages if one]
    whole = b"".join(messages)
    if kind < 0.5:
        return [whole]
    inner = [at + 5 for at in range(len(whole)) if whole.startswith((b"\r\nx: ", b"\r\n\r\n!"), at)]
    if inner and kind < 0.7:
        at = rng.choice(inner)
        return [whole[:at], whole[at:]]
    if kind < 0.75:
        return [whole[at : at + 1] for at in range(len(whole))]
    # Where a line begins is where a reader may be led to believe that a request does.
    lines = [0] + [at + 2 for at in range(len(whole)) if whole.startswith((b"\r\n", b": "), at)]
    places = sorted({rng.choice(lines) if rng.random() < 0.7 else rng.randrange(len(whole)) for _ in range(3)})
    return [part for a, b in zip([0, *places], [*places, len(whole)], strict=True) if (part := whole[a:b])]
