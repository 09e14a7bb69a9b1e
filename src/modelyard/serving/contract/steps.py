"""The step of consumer contracts: a new version is asked what consumers ask, before anybody meets it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.digest import digest_of
from modelyard._kit.text import plural
from modelyard.records import Check, CheckResult, Evidence, Limit
from modelyard.serving.contract.consumer import Broken, Consumer
from modelyard.serving.contract.starting import file_name

if TYPE_CHECKING:
    from modelyard.inference import Bundle

__all__ = ["Given", "consumers"]

_METHOD = "the requests of the contract, made to the real serving code on a loopback port"


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A contract file as it was found.

    Attributes:
        file: Its name, as the declaration leads to it.
        consumer: What stands in it.
        lines: Name of an interaction -> line at which it begins.
    """

    file: str
    consumer: Consumer
    lines: dict[str, int]


def consumers(
    *, model: Bundle, endpoint: str, files: list[str], policy: str, roles: list[str], state: dict[str, Any]
) -> list[CheckResult]:
    """Hold what consumers rely on against a version: one result a contract file.

    Args:
        model: The version.
        endpoint: Name under which it will answer; a consumer that names another stage of it is asked under that.
        files: Names and patterns of the files; its probe has read them.
        policy: What a server is told of guards and access, as JSON.
        roles: Roles that may ask for predictions; none named means all that may at all.
        state: What the probe `contracts_now` saw.

    Raises:
        UserError: A consumer asks what is no request (`contract-request`).
        ServeError: The guards do not suit the model.
    """
    from modelyard.serving.contract.promises import asked
    from modelyard.serving.guards.policy import read_policy
    from modelyard.serving.limits import Limits

    limits = Limits(policy=read_policy(policy, Path(state["unkeyed"]["root"])))
    names: Counter[str] = Counter()
    results = []
    with ExitStack() as hosts:
        asking: dict[str, Callable[[Consumer], list[Broken]]] = {}
        for given in msgspec.convert(state["contracts"], list[Given]):
            at = given.consumer.endpoint or endpoint
            if at not in asking:
                asking[at] = hosts.enter_context(asked(model, at, limits, roles=roles))
            name = f"consumer.{file_name(given.consumer.consumer)}"
            names[name] += 1
            number = f".{names[name]}" if names[name] > 1 else ""
            results.append(_result(f"{name}{number}", given, asking[at](given.consumer)))
    return results


def _result(name: str, given: Given, broken: list[Broken]) -> CheckResult:
    asked = len(given.consumer.interactions)
    evidence = Evidence(
        measure="broken_promises",
        value=len(broken),
        n=asked,
        method=_METHOD,
        details={
            "file": given.file,
            "consumer": given.consumer.consumer,
            "digest": digest_of(given.consumer),
            "broken": [{"line": given.lines.get(one.interaction, 1), **msgspec.to_builtins(one)} for one in broken],
        },
    )
    return CheckResult(
        check=Check(name=name, type="consumer", params={"file": given.file}),
        status="failed" if broken else "passed",
        reason=_why(given, broken) if broken else f"{given.file}: {plural(asked, 'interaction')}, every promise holds",
        limit=Limit(op="at_most", value=0),
        evidence=evidence,
    )


def _why(given: Given, broken: list[Broken]) -> str:
    """Say of the first broken promise where it stands, how many there are, and what to do."""
    first, others = broken[0], len(broken) - 1
    more = f" ({plural(others, 'more broken promise')})" if others else ""
    got = f"{'and' if first.got.startswith('it may be') else 'got'} {first.got}"
    return (
        f"{given.file}:{given.lines.get(first.interaction, 1)}: `{first.interaction}`: {first.field}: wanted "
        f"{first.wanted}, {got}{more}; keep what {given.consumer.consumer} relies on, or agree on another contract"
    )
