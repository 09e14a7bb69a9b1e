"""Ask the real routes what consumers ask, and say which promises do not hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from modelyard._kit.errors import UserError
from modelyard.inference import Bundle
from modelyard.serving.contract.consumer import Broken, Consumer, Interaction, broken_of, found_at, may_be
from modelyard.serving.contract.description import description
from modelyard.serving.contract.host import Host
from modelyard.serving.contract.schemas import Endpoint
from modelyard.serving.limits import Limits

__all__ = ["asked", "broken_promises"]

_SECONDS = 60.0


def broken_promises(
    consumers: Sequence[Consumer], bundle: Bundle, endpoint: str, limits: Limits, *, roles: Collection[str] = ()
) -> list[Broken]:
    """Make every request of every consumer, and return what did not come back as they rely on it.

    Args:
        consumers: Who relies on what.
        bundle: The version that is asked.
        endpoint: Name under which it answers.
        limits: Limits of the server, with its guards.
        roles: Roles that may ask for predictions; none named means all that may at all.

    Raises:
        UserError: A consumer relies on another endpoint (`contract-endpoint`), or asks what is no request
            (`contract-request`).
    """
    other = next((c for c in consumers if c.endpoint and c.endpoint != endpoint), None)
    if other is not None:
        raise UserError(
            "contract-endpoint",
            f"`{other.consumer}` relies on `{other.endpoint}`, and `{endpoint}` is asked",
            hint="name the endpoint with --endpoint, or mend `endpoint` in the file",
        )
    with asked(bundle, endpoint, limits, roles=roles) as broken_for:
        return [broken for consumer in consumers for broken in broken_for(consumer)]


@contextmanager
def asked(
    bundle: Bundle, endpoint: str, limits: Limits, *, roles: Collection[str] = ()
) -> Iterator[Callable[[Consumer], list[Broken]]]:
    """Give a function that makes the requests of one consumer, and returns which promises do not hold.

    Args:
        bundle: The version that is asked.
        endpoint: Name under which it answers.
        limits: Limits of the server, with its guards.
        roles: Roles that may ask for predictions; none named means all that may at all.
    """
    document = description(Endpoint.of(bundle, endpoint, limits))
    with Host(bundle, endpoint, limits, roles=roles) as host:

        def wrong_in(consumer: Consumer, interaction: Interaction) -> list[tuple[str, str, str]]:
            return list(_held(interaction, document, *_ask(host, consumer, interaction)))

        def broken_for(consumer: Consumer) -> list[Broken]:
            # Asked once more: what a guard of the project loads at its first call may take longer than it may.
            return [
                Broken(consumer=consumer.consumer, interaction=interaction.name, field=field, wanted=wanted, got=got)
                for interaction in consumer.interactions
                if wrong_in(consumer, interaction)
                for field, wanted, got in wrong_in(consumer, interaction)
            ]

        yield broken_for


def _ask(host: Host, consumer: Consumer, interaction: Interaction) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and body of an answer; a body that is no JSON as a text."""
    request = interaction.request
    body: Any = request.body
    if request.rows:
        body = {"rows": request.rows}
    elif request.columns:
        body = {"columns": request.columns}
    data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {host.tokens[consumer.role]}", **request.headers}
    connection = HTTPConnection(urlsplit(host.url).netloc, timeout=_SECONDS)
    try:
        connection.request(request.method or ("GET" if data is None else "POST"), request.path, data, headers)
        answer = connection.getresponse()
        raw = answer.read()
    except (ValueError, HTTPException) as error:
        raise UserError(
            "contract-request",
            f"`{interaction.name}` of `{consumer.consumer}` is no request: {error}",
            hint="mend its path or its headers",
        ) from None
    finally:
        connection.close()
    try:
        found = json.loads(raw)
    except ValueError:
        found = raw.decode(errors="replace")
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, found


def _held(
    interaction: Interaction, document: dict[str, Any], status: int, headers: dict[str, str], body: Any
) -> Iterator[tuple[str, str, str]]:
    """Yield what does not hold: field, wanted, got."""
    wanted = interaction.answer
    if status != wanted.status:
        said = body.get("error", "") if isinstance(body, dict) else ""
        text = said.get("message", "") if isinstance(said, dict) else str(said)
        yield "status", str(wanted.status), f"{status}: {text}" if text else str(status)
        # The body is that of another answer.
        return
    for name, relied in wanted.headers.items():
        if (wrong := broken_of(relied, headers.get(name.lower(), ...))) is not None:
            yield f"header {name}", *wrong
    for pointer, relied in wanted.fields.items():
        for place, value in found_at(body, pointer):
            if (wrong := broken_of(relied, value)) is not None:
                yield place, *wrong
        if interaction.request.path == "/predict" and status == 200:
            for value in may_be(document, pointer, relied):
                known = ", ".join(json.dumps(one, ensure_ascii=False) for one in relied.one_of)
                yield pointer, f"one of {known}", f"it may be {json.dumps(value, ensure_ascii=False)}"
