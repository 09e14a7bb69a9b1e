"""Point an alias at a model version, and back again; every move is an event and none is undone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from modelyard._kit.digest import short
from modelyard._kit.errors import Busy, NotFound, Refused, UserError
from modelyard.deploy.promotion import Admission, DeclaredStage, admit, arrive, stages_of, tried
from modelyard.inference import open_bundle
from modelyard.records import Alias, Deployment, Draft, ModelVersion, plain, read_value
from modelyard.security.keys import trusted_keys
from modelyard.store.base import Store
from modelyard.store.origins import origin

__all__ = [
    "bundle_folder",
    "endpoint_of",
    "find_model",
    "move",
    "pointed",
    "released",
    "rollback",
    "settle",
    "successor",
    "trace_of",
    "withdraw",
]


# How an alias comes to be.
_MADE = {
    "champion": "`modelyard run` makes a champion once every blocking check passes and the card is whole, and "
    "`modelyard promote MODEL` points at a model by hand",
    "challenger": "`modelyard promote MODEL --alias challenger` makes a challenger of any model with a card, and with "
    "`deploy: {rollout: {canary: 10%}}` each run puts its model there",
}


def pointed(store: Store, endpoint: str, alias: Alias = "champion") -> Deployment:
    """Return where an alias points now.

    Raises:
        NotFound: Nowhere yet (`alias-not-found`), or no alias is of this endpoint (`endpoint-not-found`).
    """
    now = store.ledger.alias(endpoint, alias)
    if now is None:
        known = sorted({d.endpoint for d in store.ledger.aliases()} | set(stages_of(store)))
        if endpoint not in known and known:
            raise NotFound.of("endpoint", endpoint, known)
        raise NotFound(
            "alias-not-found",
            f"`{endpoint}` has no {alias} yet",
            hint=f"{_present(store, endpoint)}{_made(stages_of(store).get(endpoint), alias)}",
        )
    return now


def _made(stage: DeclaredStage | None, alias: Alias) -> str:
    if stage is None or not stage.before:
        return _MADE[alias]
    more = " --alias challenger" if alias == "challenger" else ""
    return f"`modelyard promote --to {stage.name}{more}` takes the champion of `{stage.before}`"


def _present(store: Store, endpoint: str) -> str:
    now = {d.alias: d for d in store.ledger.aliases(endpoint)}
    return "".join(f"its {alias} is {short(to.model.digest)}; " for alias, to in sorted(now.items()))


def trace_of(store: Store, deployment: Deployment) -> str:
    """Return the trace of the run that a deployment's model comes from; empty if no run is known.

    A person who promotes or rolls back points at what some run has made: that run's trace is the way back.
    """
    return origin(store.ledger, deployment)


def bundle_folder(store: Store, deployment: Deployment) -> Path:
    """Return the folder of the bundle that an alias points at.

    Raises:
        NotFound: The store does not hold it (`folder-not-found`): a run makes the model of today's data and code, which
            need not be this one, so the hint names what is there to point at.
    """
    try:
        return store.blobs.folder(deployment.model.address)
    except NotFound as error:
        name, model = f"{deployment.endpoint}/{deployment.alias}", short(deployment.model.digest)
        there = next((one for one in released(store) if one.name == deployment.model.name and _held(store, one)), None)
        hint = "put `.modelyard/blobs/folders` back from a copy"
        if there is not None:
            more = " --alias challenger" if deployment.alias == "challenger" else ""
            hint += f", or point at a model that is there: `modelyard promote {short(there.digest)}{more}`"
            hint += " (`modelyard rollback` for one that it pointed at before)"
        else:
            hint += ", or make a model to point at: `modelyard run`, then `modelyard promote MODEL`"
        message = f"the bundle of `{name}`, model `{model}`, is not in this store, and a run need not make it again"
        raise NotFound("folder-not-found", message, hint=hint) from error


def _held(store: Store, model: ModelVersion) -> bool:
    try:
        store.blobs.folder(model.address)
    except NotFound:
        return False
    return True


def endpoint_of(store: Store, named: str = "") -> str:
    """Return the endpoint that is meant: the one named, or the only one there is.

    Raises:
        NotFound: There is none of this name, or none at all (`endpoint-not-found`).
        UserError: There are several and none was named (`endpoint-unclear`).
    """
    known = sorted({d.endpoint for d in store.ledger.aliases()})
    if named:
        if named not in known:
            raise NotFound.of("endpoint", named, known)
        return named
    if not known:
        raise NotFound(
            "endpoint-not-found",
            "no model was promoted yet",
            hint="`modelyard run` promotes one, once every blocking check passes and nothing is missing in the card; "
            "`modelyard runs` says how the newest one ended",
        )
    if len(known) > 1:
        raise UserError("endpoint-unclear", "there are several endpoints", hint=f"name one: {', '.join(known)}")
    return known[0]


def successor(now: Deployment | None, endpoint: str, alias: Alias, model: ModelVersion, reason: str) -> Deployment:
    """Return the deployment that comes after `now`; `now` itself if it points at this very version.

    Raises:
        Refused: The model has no card (`no-card`).
    """
    if not model.released:
        raise Refused(
            "no-card",
            f"model `{short(model.digest)}` has no card, so `{endpoint}/{alias}` does not move to it",
            hint="run the whole file: it writes the card once every blocking check passes",
        )
    if now is not None and now.model.identity == model.identity:
        return now
    previous = ""
    if now is not None:
        # The same model with another card stands in for itself; what was before it stays before it.
        previous = now.previous if now.model.digest == model.digest else now.model.digest
    return Deployment(
        endpoint=endpoint,
        alias=alias,
        model=model,
        revision=now.revision + 1 if now else 1,
        previous=previous,
        reason=reason,
    )


def move(store: Store, endpoint: str, alias: Alias, model: ModelVersion, *, reason: str = "", actor: str) -> Deployment:
    """Point an alias at a model; into a stage only one that may enter it.

    Args:
        store: Where models and events are.
        endpoint: Name of the endpoint.
        alias: `champion` or `challenger`.
        model: A version with a card.
        reason: Why it moves; who did it, and what let it into a stage, by default.
        actor: Who moves it, e.g. `user:ana`.

    Returns:
        The new deployment, or the present one if it points there already.

    Raises:
        Refused: The model has no card (`no-card`), or may not enter this stage, as `promotion.admit` says.
        Tampered: The stored bundle is not what was signed.
        Busy: Somebody else moves an alias of this endpoint, or of the stage before.
    """
    with ExitStack() as held:
        # What a model comes from must not move while it is looked at. Lower first, as everybody does.
        stage = stages_of(store).get(endpoint)
        for name in (stage.before_endpoint if stage is not None else "", endpoint):
            if name:
                held.enter_context(store.hold(f"alias.{name}", who={"actor": actor}))
        return _point(store, endpoint, alias, model, reason=reason, actor=actor, gate=True)


def _point(
    store: Store, endpoint: str, alias: Alias, model: ModelVersion, *, reason: str, actor: str, gate: bool
) -> Deployment:
    """Point an alias that is held at a model."""
    now = store.ledger.alias(endpoint, alias)
    if now is not None and successor(now, endpoint, alias, model, reason) is now and not _over(store, now):
        return now
    admission = admit(store, endpoint, model, actor=actor) if gate else None
    why = reason or _why(admission, actor)
    then = successor(now, endpoint, alias, model, why)
    if then is now:
        # Servers try what was named after the champion moved.
        then = msgspec.structs.replace(now, revision=now.revision + 1, reason=why)
    open_bundle(store.blobs.folder(model.address), trusted=trusted_keys(store.root), version=model)
    payload = {"deployment": plain(then), **({"admitted": plain(admission)} if admission is not None else {})}
    store.ledger.append(Draft(kind="alias.moved", actor=actor, payload=payload), durable=True)
    return then


def _over(store: Store, now: Deployment) -> bool:
    """Say whether an alias is a challenger whose trial is over while another model is the champion."""
    champion = store.ledger.alias(now.endpoint, "champion")
    other = champion is not None and champion.model.digest != now.model.digest
    return other and tried(store, now.endpoint) is None


def _why(admission: Admission | None, actor: str) -> str:
    if admission is None:
        return f"promoted by {actor}"
    approved = f", approved by {', '.join(admission.approved)}" if admission.approved else ""
    return f"promoted from {admission.before} by {actor}{approved}"


@contextmanager
def settle(
    store: Store, deployment: Deployment, *, actor: str = "", seconds: float = 10.0
) -> Iterator[Deployment | None]:
    """Hold an alias and give the deployment that a step returned as it stands now.

    A step works out its deployment before anybody holds the alias; a person may have moved it since. So revision and
    what was before are worked out again, and the event is written while the context is open:

        with settle(store, deployment) as settled:
            if settled is not None:
                store.ledger.append(Draft(kind="alias.moved", payload={"deployment": plain(settled)}), durable=True)

    Args:
        store: Where models and events are.
        deployment: What the step returned.
        actor: Who moves it.
        seconds: How long to wait for somebody else who moves an alias of this endpoint.

    Yields:
        The deployment to write; none where the alias points at this very version already.

    Raises:
        Refused: The model has no card (`no-card`), or this is a stage that no run leads to, as `promotion.arrive` says.
        Busy: Somebody else holds the alias all this time.
    """
    until = time.monotonic() + seconds
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(store.hold(f"alias.{deployment.endpoint}", who={"actor": actor}))
                break
            except Busy:
                # A move takes milliseconds; the work of a whole run is not given up for one.
                if time.monotonic() >= until:
                    raise
                time.sleep(0.05)
        now = store.ledger.alias(deployment.endpoint, deployment.alias)
        then = successor(now, deployment.endpoint, deployment.alias, deployment.model, deployment.reason)
        if then is not now:
            arrive(store, deployment.endpoint, deployment.model)
        yield None if then is now else then


def rollback(
    store: Store, endpoint: str, *, actor: str, to: str = "", alias: Alias = "champion", reason: str = ""
) -> Deployment:
    """Point an alias back at the version before, or at another that it pointed at once.

    Args:
        store: Where models and events are.
        endpoint: Name of the endpoint.
        actor: Who does it.
        to: First digits of the digest of an earlier version; the one before by default.
        alias: Which alias.
        reason: Why; who did it by default.

    Raises:
        Refused: There is no version before (`no-previous`).
        NotFound: It never pointed at a version with these digits.
    """
    now = pointed(store, endpoint, alias)
    moves = [d for d in store.ledger.aliases(endpoint) if d.alias == alias]
    if not to and not now.previous:
        stage = stages_of(store).get(endpoint)
        if stage is not None and stage.before:
            more = _made(stage, alias)
        else:
            more = "`modelyard promote MODEL` points it at another model"
        raise Refused(
            "no-previous",
            f"`{endpoint}/{alias}` has pointed at one model only: {short(now.model.digest)}",
            hint=f"there is nothing to go back to; {more}",
        )
    target = _matching((d.model for d in reversed(moves)), to or now.previous)
    # It was let in before, and whoever goes back is in a hurry.
    with store.hold(f"alias.{endpoint}", who={"actor": actor}):
        why = reason or f"rollback by {actor}"
        return _point(store, endpoint, alias, target, reason=why, actor=actor, gate=False)


def withdraw(store: Store, endpoint: str, *, actor: str, reason: str = "") -> Deployment:
    """End the trial of a challenger: point it at the champion's model.

    Args:
        store: Where models and events are.
        endpoint: Name of the endpoint.
        actor: Who does it.
        reason: Why; who did it by default.

    Raises:
        NotFound: There is no champion or no challenger (`alias-not-found`).
        Refused: The challenger is the champion's model already (`no-trial`).
    """
    champion, challenger = pointed(store, endpoint), pointed(store, endpoint, "challenger")
    if champion.model.digest == challenger.model.digest:
        raise Refused(
            "no-trial",
            f"no challenger of `{endpoint}` is on trial",
            hint="`modelyard rollback` points the champion back",
        )
    why = reason or f"trial ended by {actor}"
    with store.hold(f"alias.{endpoint}", who={"actor": actor}):
        return _point(store, endpoint, "challenger", champion.model, reason=why, actor=actor, gate=False)


def released(store: Store) -> list[ModelVersion]:
    """Return every version that has a card, newest first, each once."""
    found: dict[str, ModelVersion] = {}
    for event in store.ledger.events(kinds=("step.finished", "alias.moved")):
        for value in (*event.payload.get("outputs", {}).values(), event.payload.get("deployment", {})):
            model = read_value(value)
            if isinstance(model, Deployment):
                model = model.model
            if isinstance(model, ModelVersion) and model.released:
                found.pop(model.identity, None)
                found[model.identity] = model
    return list(reversed(found.values()))


def find_model(store: Store, digits: str) -> ModelVersion:
    """Return the newest released version whose digest begins with `digits`.

    Raises:
        NotFound: There is none (`model-not-found`).
        UserError: Several models begin so (`model-unclear`).
    """
    return _matching(released(store), digits)


def _matching(models: Iterable[ModelVersion], digits: str) -> ModelVersion:
    known = list(models)
    found = [m for m in known if m.digest.startswith(digits)]
    if not found:
        raise NotFound.of("model", digits, {short(m.digest) for m in known})
    if len({m.digest for m in found}) > 1:
        names = ", ".join(sorted({short(m.digest) for m in found}))
        raise UserError("model-unclear", f"several models begin with `{digits}`", hint=f"give more digits: {names}")
    return found[0]
