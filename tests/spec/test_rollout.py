"""What cannot stand in `deploy.rollout`."""

from __future__ import annotations

from modelyard.deploy.section import Deploy, Rollout
from modelyard.spec.declaration import Declaration
from modelyard.spec.rules.rollout import rollout_rules


def declared(rollout: Rollout) -> Declaration:
    import msgspec

    whole = msgspec.convert({"project": "p", "data": {}}, Declaration)
    return msgspec.structs.replace(whole, deploy=Deploy(rollout=rollout))


def test_watch_needs_a_canary() -> None:
    assert [f.code for f in rollout_rules(declared(Rollout(watch=3600.0)))] == ["spec-rollout-no-canary"]
    assert not list(rollout_rules(declared(Rollout(watch=3600.0, canary=0.1))))
    assert not list(rollout_rules(declared(Rollout(shadow=True))))
