"""An endpoint for the tests of its callers: the real routes and refusals, and answers that are made up.

An answer depends on the row and a seed alone, so that the same request has the same answer, on any machine.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.inference import Bundle, Feeds, Predictor
from modelyard.inference.decode import Label
from modelyard.records import Feature, ModelVersion, Problem, Signature
from modelyard.security.tokens import Caller, TokenBook
from modelyard.serving.contract.host import Host
from modelyard.serving.contract.schemas import FLOAT32_MAX
from modelyard.serving.guards.policy import Guarded
from modelyard.serving.http.connection import Connection
from modelyard.serving.limits import Limits

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["HEADER", "MadeUp", "MockBundle", "bundle_of", "mock", "mock_of"]

# Every answer of a mock has it, and no other answer does.
HEADER = b"x-modelyard-mock: 1"
_LARGEST = float(1 << 64)


class MadeUp:
    """Makes up what a model might answer.

    Args:
        problem: What is answered.
        seed: Another one, other answers.
        low: Lowest answer of a regression.
        high: Highest answer of a regression.
    """

    def __init__(self, problem: Problem, seed: int, low: float = 0.0, high: float = 1.0) -> None:
        self._problem = problem
        self._seed = b"%d:" % seed
        self._low, self._high = low, high

    def predict(self, feeds: Feeds) -> Array:
        """Return probabilities that add up to 1, or numbers between the bounds."""
        import numpy as np

        count = len(next(iter(feeds.values())))
        rows = [self._row(b"\0".join(_bytes(values[at]) for _, values in sorted(feeds.items()))) for at in range(count)]
        return np.array(rows, np.float32).reshape(count, -1)

    def _row(self, data: bytes) -> list[float]:
        if self._problem.task == "regression":
            return [self._low + (self._high - self._low) * self._drawn(data, 0)]
        # Uniform over all distributions: exponential shares, divided by their sum.
        shares = [-math.log(1 - self._drawn(data, at)) for at in range(len(self._problem.classes))]
        whole = sum(shares) or 1.0
        return [share / whole for share in shares]

    def _drawn(self, data: bytes, number: int) -> float:
        """Return a number from 0 to below 1."""
        digest = hashlib.blake2b(self._seed + b"%d:" % number + data, digest_size=8).digest()
        return (int.from_bytes(digest, "big") >> 11) / (_LARGEST / 2048)


def _bytes(row: Array) -> bytes:
    return row.tobytes() if row.dtype.kind == "f" else "\0".join(map(str, row)).encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class MockBundle(Bundle):
    """A bundle whose model makes its answers up.

    Attributes:
        seed: Another one, other answers.
        guards: What the description refuses that it was made of; none: it was made of none.
    """

    seed: int = 0
    guards: Guarded | None = None

    def predictor(self, threads: int = 1) -> Predictor:
        """Return what makes answers up, within those that the model gave to its training data."""
        seen = self.profile.get("predictions", {}).get("score", {}).get("knots") or [0.0, 1.0]
        return MadeUp(self.signature.problem, self.seed, seen[0], seen[-1])


def mock_of(bundle: Bundle, seed: int) -> MockBundle:
    """Return a bundle with another one's signature and profile, and answers that are made up."""
    return MockBundle(bundle.path, bundle.version, bundle.read, bundle.names, seed=seed)


def bundle_of(document: dict[str, Any], seed: int) -> MockBundle:
    """Return a bundle that takes and answers what a description says."""
    schemas = document["components"]["schemas"]
    columns = schemas["Row"]["properties"]
    features = tuple(_feature(name, schema) for name, schema in columns.items())
    problem, labels = _problem(schemas)
    name, digest = document["info"]["title"], document["info"]["version"]
    version = ModelVersion(
        name=name,
        digest=digest,
        family="mock",
        params={},
        format="onnx",
        signature=Signature(features=features, problem=problem),
        trained_on=(),
        environment="",
    )
    profile = {"predictions": {"score": {"knots": _between(schemas["Value"])}}}
    files = {"labels.json": msgspec.json.encode(labels), "profile.json": msgspec.json.encode(profile)}
    return MockBundle(Path(), version, files.__getitem__, tuple(files), seed=seed, guards=_guards(columns))


def _feature(name: str, schema: dict[str, Any]) -> Feature:
    kinds, seen = _kinds(schema), schema.get("x-seen", {})
    # Of very many categories only those that are refused otherwise are all written out.
    categories = [text for text in schema.get("enum", ()) if isinstance(text, str) and text]
    return Feature(
        name=name,
        type="number" if kinds[0] == "number" else "category",
        source="Boolean" if kinds[0] == "number" and "boolean" in kinds else "",
        nullable="null" in kinds or seen.get("missing", False),
        low=seen.get("low"),
        high=seen.get("high"),
        categories=tuple(categories or seen.get("categories", ())),
    )


def _guards(columns: dict[str, Any]) -> Guarded:
    """Return what refuses or takes what the schemas of the columns do; one that refuses holds for all columns."""
    given = columns.values()
    narrow = any(one.get("minimum", -FLOAT32_MAX) > -FLOAT32_MAX for one in given) or any(
        one.get("maximum", FLOAT32_MAX) < FLOAT32_MAX for one in given
    )
    return Guarded(
        unseen="reject" if any("enum" in one for one in given) else "warn",
        out_of_range="reject" if narrow else "warn",
        missing="reject" if any(one.get("x-seen", {}).get("missing") for one in given) else "accept",
        coerce=tuple(name for name, one in columns.items() if {"number", "string"} <= set(_kinds(one))),
    )


def _kinds(schema: dict[str, Any]) -> list[str]:
    return schema["type"] if isinstance(schema["type"], list) else [schema["type"]]


def _between(value: dict[str, Any]) -> list[float]:
    """Return the lowest and the highest number that may be answered; from 0 to 1 where nothing is said of it."""
    low, high = value.get("minimum"), value.get("maximum")
    if low is None:
        low = 0.0 if high is None else min(0.0, high)
    return [low, max(1.0, low) if high is None else high]


def _problem(schemas: dict[str, Any]) -> tuple[Problem, list[Label]]:
    answered = schemas["Prediction"]["properties"]
    if "value" in answered:
        return Problem(task="regression", target=""), []
    classes = tuple(answered["probabilities"]["properties"])
    labels = [label for label in schemas["Value"]["enum"] if label is not None]
    task: Any = "binary" if len(classes) == 2 else "multiclass"
    return Problem(task=task, target="", classes=classes, positive=classes[-1] if task == "binary" else ""), labels


class _Tokens(TokenBook):
    """Knows one token, or any."""

    def __init__(self, folder: Path, token: str, role: str) -> None:
        super().__init__(folder)
        self._token, self._caller = token, Caller("mock", role)

    def find(self, text: str, endpoint: str = "") -> Caller | None:
        """Return who this is."""
        return self._caller if not self._token or text == self._token else None


class _Transport:
    """Writes what another one does, with the header of a mock in each answer."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write an answer; what goes ahead of one stays as it is."""
        line, end, rest = bytes(data).partition(b"\r\n")
        if line.startswith(b"HTTP/1.1 ") and not line.startswith(b"HTTP/1.1 100"):
            data = b"".join((line, end, HEADER, end, rest))
        self._transport.write(data)

    def writelines(self, parts: list[bytes]) -> None:
        """Write the parts of an answer."""
        self.write(b"".join(parts))


class _Connection(Connection):
    """A connection that says in each answer that it comes from a mock."""

    __slots__ = ()

    def connection_made(self, transport: Any) -> None:
        """Mark what is written."""
        super().connection_made(_Transport(transport))


def mock(
    bundle: MockBundle, endpoint: str, limits: Limits, *, port: int, token: str = "", role: str = "analyst"
) -> Host:
    """Return a server of made up answers on the loopback, to be entered.

    Args:
        bundle: What makes them up.
        endpoint: Name under which it answers.
        limits: Limits, with the guards; those of a description go before them.
        port: Port; 0 takes a free one.
        token: The only token that is known; empty: any is.
        role: Role of whoever asks.
    """
    if bundle.guards is not None:
        limits = replace(limits, policy=msgspec.structs.replace(limits.policy, guards=bundle.guards))
    known = partial(_Tokens, token=token, role=role)
    return Host(bundle, endpoint, limits, port=port, tokens=known, connection=_Connection)
