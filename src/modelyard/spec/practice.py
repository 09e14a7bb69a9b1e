"""Good practice as rules: what a declaration that runs alone at night should say, and how to say it.

A declaration that breaks a rule still runs. Rules that do not apply (an alert where nothing runs by itself) do not
count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modelyard.checks.section import Beats, Gap, Latency, MetricLimit, given
from modelyard.security.redact import redact
from modelyard.spec.rules.guards import tasks_of
from modelyard.spec.sections.retries import Retries
from modelyard.spec.spec import Spec

__all__ = ["RULES", "Held", "Lint", "Rule", "practice"]


_PLACE = re.compile(r"(?:secret|password|token)[\"']?\s*:\s*\[?\s*[\"']?(?:env:\w+|file:[^\s,}\]]+|[A-Z][A-Z0-9_]+\b)")


@dataclass(frozen=True, slots=True)
class Lack:
    """One place where a rule is not kept.

    Attributes:
        path: Dotted path in the file.
        what: What is missing there.
        fix: What to write.
    """

    path: str
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of good practice.

    Attributes:
        name: Its name, in kebab-case.
        why: Why one keeps it.
        weight: How much it counts in the score; 3 and more: a declaration without it should not run alone.
        applies: Whether it says anything of a declaration.
        lacks: Where a declaration does not keep it.
    """

    name: str
    why: str
    weight: int
    applies: Callable[[Spec], bool]
    lacks: Callable[[Spec], Iterator[Lack]]


@dataclass(frozen=True, slots=True)
class Held:
    """How a declaration stands to one rule.

    Attributes:
        rule: Name of the rule.
        why: Why one keeps it.
        weight: How much it counts.
        kept: Whether it is kept everywhere.
        where: File and line of each place where it is not.
        lacks: What is missing there, in the same order.
        fixes: What to write there, in the same order.
    """

    rule: str
    why: str
    weight: int
    kept: bool
    where: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lint:
    """The result.

    Attributes:
        score: Weight of the rules that are kept, of all that apply, from 0 to 100.
        rules: Each rule that applies, in the order of `RULES`.
    """

    score: int
    rules: tuple[Held, ...]


def practice(spec: Spec) -> Lint:
    """Hold a declaration against good practice."""
    held = []
    for rule in RULES:
        if rule.applies(spec):
            lacks = list(rule.lacks(spec))
            held.append(
                Held(
                    rule=rule.name,
                    why=rule.why,
                    weight=rule.weight,
                    kept=not lacks,
                    where=tuple(spec.where(lack.path) for lack in lacks),
                    lacks=tuple(lack.what for lack in lacks),
                    fixes=tuple(lack.fix for lack in lacks),
                )
            )
    whole = sum(one.weight for one in held)
    return Lint(round(100 * sum(one.weight for one in held if one.kept) / whole) if whole else 100, tuple(held))


def _always(spec: Spec) -> bool:
    return True


def _has_data(spec: Spec) -> bool:
    return bool(spec.data)


def _has_model(spec: Spec) -> bool:
    return spec.model is not None


def _has_steps(spec: Spec) -> bool:
    return bool(spec.steps)


def _alone(spec: Spec) -> bool:
    return bool(spec.schedule or spec.triggers)


def _no_secret(spec: Spec) -> Iterator[Lack]:
    for number, line in enumerate(spec.path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        # Where a secret is (`secret: HOOK_SECRET`, `env:NAME`, `file:PATH`) is none.
        line = _PLACE.sub("", line)
        if redact(line) != line:
            path = next((p for p, (at, _) in spec.places.items() if at == number), "")
            yield Lack(path, f"line {number} looks like a secret", "read it from the environment where it is used")


def _retries(spec: Spec) -> Iterator[Lack]:
    if _times(spec.retries) == 0:
        yield Lack("retries", "no step is tried again", "retries: 3")
    for name, step in spec.steps.items():
        if step.retries is not None and _times(step.retries) == 0:
            yield Lack(f"steps.{name}.retries", f"`{name}` is not tried again", "retries: 3")


def _times(retries: int | Retries) -> int:
    return retries.times if isinstance(retries, Retries) else retries


def _fresh(spec: Spec) -> Iterator[Lack]:
    for name, source in spec.data.items():
        if source.fresh_within is None:
            yield Lack(f"data.{name}", f"nothing says how old `{name}` may be", "fresh_within: 2d")


def _volume(spec: Spec) -> Iterator[Lack]:
    for name, source in spec.data.items():
        if source.volume is None:
            yield Lack(f"data.{name}", f"half of `{name}` would pass for the whole", "volume: {of_last: 50%}")


def _contract(spec: Spec) -> Iterator[Lack]:
    for name, source in spec.data.items():
        if not source.contract:
            yield Lack(
                f"data.{name}", f"nothing is asked of the columns of `{name}`", "contract: {COLUMN: {type: int}}"
            )


def _told_of(spec: Spec, kind: str, why: str) -> Iterator[Lack]:
    if not any(kind in told.on for told in spec.alerts):
        fix = f'alerts: [{{to: "mailto:...", on: [{kind}]}}]'
        yield Lack("alerts", why, fix)


def _told_of_start(spec: Spec) -> Iterator[Lack]:
    yield from _told_of(spec, "start", "nobody hears that a run has begun, so nobody misses one that has not")


def _told_of_failure(spec: Spec) -> Iterator[Lack]:
    yield from _told_of(spec, "failure", "nobody hears of a run that failed")


def _owner(spec: Spec) -> Iterator[Lack]:
    if not spec.owners:
        yield Lack("owners", "nobody answers for it", 'owners: [{team: NAME, contact: "mailto:..."}]')
    for at, owner in enumerate(spec.owners):
        if not owner.contact:
            yield Lack(f"owners.{at}", f"`{owner.team}` cannot be reached", 'contact: "mailto:..."')


def _card(spec: Spec) -> Iterator[Lack]:
    if not spec.purpose:
        yield Lack("purpose", "nothing says what it is for", "purpose: What it decides, in a sentence.")
    if not spec.card.intended_use.for_:
        yield Lack("card", "the card does not say what the model is for", "card: {intended_use: {for: [...]}}")
    if not spec.card.factors:
        yield Lack("card", "the card tells no group of people from another", "card: {factors: [COLUMN]}")


def _limits(spec: Spec) -> Iterator[Lack]:
    for name, step in spec.steps.items():
        if not step.timeout:
            yield Lack(f"steps.{name}", f"`{name}` may run for ever", "timeout: 30m")
        if not step.resources.memory:
            yield Lack(f"steps.{name}", f"`{name}` may take all memory", "resources: {memory: 2GB}")


def _rate(spec: Spec) -> Iterator[Lack]:
    if spec.deploy.access.per_minute is None:
        yield Lack("deploy", "one caller may ask without end", "deploy: {access: {per_minute: 600}}")


def _budget(spec: Spec) -> Iterator[Lack]:
    if spec.cost.per_run is None and spec.cost.per_month is None:
        yield Lack("cost", "nothing stops a run that costs too much", "cost: {prices: {cpu_hour: 0.04}, per_run: 5}")


def _proof(spec: Spec) -> Iterator[Lack]:
    kinds = [settings for _, settings in filter(None, map(given, spec.checks))]
    if not any(isinstance(one, MetricLimit) for one in kinds):
        yield Lack("checks", "no metric has to be reached", _metric_fix(spec))
    if not any(isinstance(one, Beats) for one in kinds):
        yield Lack("checks", "a worse model may replace a better one", "- beats: {champion: true, baseline: true}")
    if spec.card.factors and not any(isinstance(one, Gap) for one in kinds):
        fix = f"- gap: {{metric: {_gap_metric(spec)}, across: [{spec.card.factors[0]}], at_most: 0.1}}"
        yield Lack("checks", "groups may be treated unlike", fix)
    if not any(isinstance(one, Latency) for one in kinds):
        yield Lack("checks", "a model may answer too slowly to be used", "- latency: {p99: 50ms}")


def _metric_fix(spec: Spec) -> str:
    if tasks_of(spec) == {"regression"}:
        return "- r2: {at_least: 0.5, with_confidence: 95%}"
    return "- roc_auc: {at_least: 0.8, with_confidence: 95%}"


def _gap_metric(spec: Spec) -> str:
    tasks = tasks_of(spec)
    return "r2" if tasks == {"regression"} else "false_negative_rate" if "binary" in tasks else "accuracy"


RULES: tuple[Rule, ...] = (
    Rule("no-secret-in-the-file", "the file is shared and kept for ever", 5, _always, _no_secret),
    Rule("retries-everywhere", "networks and disks fail for a moment", 3, _always, _retries),
    Rule("failure-is-told", "what runs alone fails alone", 5, _alone, _told_of_failure),
    Rule("start-is-told", "a run that never began leaves no failure", 2, _alone, _told_of_start),
    Rule("freshness-first", "yesterday's rows make yesterday's model, at today's price", 3, _has_data, _fresh),
    Rule("volume-first", "an export that broke off looks like data", 2, _has_data, _volume),
    Rule("contract", "a column that changed its meaning changes the model in silence", 3, _has_data, _contract),
    Rule("owner", "somebody has to answer at night", 3, _always, _owner),
    Rule("card", "who uses a model has to know what for", 2, _has_model, _card),
    Rule("proof", "a claim that is not measured is a hope", 3, _has_model, _proof),
    Rule("limits-of-steps", "one step must not take the machine from all others", 2, _has_steps, _limits),
    Rule("limits-of-callers", "one caller must not take the endpoint from all others", 1, _has_model, _rate),
    Rule("budget", "what runs alone spends alone", 1, _alone, _budget),
)
