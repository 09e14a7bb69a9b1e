"""What a person wants to see when a run has ended: the models, the checks, what was put aside, what to do next."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.text import number, plural, seconds_text
from modelyard.cli.output import MARKS, data, paint, table, width
from modelyard.records import Candidate, CheckResult, Deployment, Run, TableVersion, values_of

if TYPE_CHECKING:
    from modelyard.store import Store

__all__ = ["print_checks", "print_runs", "report", "report_alias", "results_of"]


def report(run: Run) -> None:
    """Print the summary of a run to stdout."""
    _leaderboard(run)
    _checks(run)
    _quarantine(run)


def report_alias(run: Run, store: Store) -> None:
    """Print where the alias that a run moved points now; a person, or a server after a trial, may have moved it."""
    from modelyard.deploy.promotion import awaited, stages_of

    deployed = values_of(run, Deployment)
    stages = stages_of(store) if deployed else {}
    for made in deployed:
        stage = stages.get(made.endpoint)
        to = f" --to {stage.name}" if stage is not None else ""
        champion = store.ledger.alias(made.endpoint, "champion")
        now = store.ledger.alias(made.endpoint, made.alias) or made
        if champion is not None and champion.model.digest == made.model.digest:
            # A trial that it has won is over.
            now = champion
        data("")
        data(f"{now.endpoint}/{now.alias} -> {now.model.family} {short(now.model.digest)} ({now.reason})")
        if now.alias == "challenger" and now.model.digest == made.model.digest and champion is not None:
            text = f"{champion.model.family} {short(champion.model.digest)} stays the champion meanwhile"
            data(f"  {text}; `modelyard promote challenger{to}` ends the trial")
        if now.model.digest != made.model.digest:
            model = f"{made.model.family} {short(made.model.digest)}"
            data(f"  this run made {model}; `modelyard promote {short(made.model.digest)}{to}` points there")
        elif stage is not None and now.alias == "champion" and (then := awaited(store, made.endpoint)):
            data(f"next: {then}")


def results_of(run: Run) -> list[CheckResult]:
    """Return every check result of a run, each once, in order."""
    found: dict[str, CheckResult] = {}
    for result in values_of(run, CheckResult):
        found.setdefault(result.check.name, result)
    return list(found.values())


def print_checks(results: Sequence[CheckResult]) -> None:
    """Print checks as a table, and under it why each that did not hold did not."""
    table(("", "check", "value", "interval", "limit", "n"), map(_check_row, results), right=(2, 5))
    if any(not result.check.blocking for result in results):
        data("* does not block")
    told = [result for result in results if result.status != "passed"]
    if told:
        data("")
    for result in told:
        text = f"{_mark(result)} {result.check.name}: {result.reason}"
        for line in textwrap.wrap(text, width(), subsequent_indent="  ", break_on_hyphens=False):
            data(line)


def print_runs(runs: Sequence[Run]) -> None:
    """Print runs as a table, in the order in which they are given."""
    table(
        ("", "run", "status", "started", "took", "result", "reason"),
        [
            (
                paint(MARKS[r.status], r.status),
                r.id,
                r.status,
                as_text(r.started),
                seconds_text(r.seconds) if r.ended else "",
                short(r.result),
                r.reason.partition("\n")[0],
            )
            for r in runs
        ],
        right=(4,),
    )


def _mark(result: CheckResult) -> str:
    # Rows set aside as the declaration says are worth a look, and no failure.
    aside = result.check.type == "contract" and result.status == "failed" and not result.check.blocking
    return "!" if aside else MARKS[result.status]


def _check_row(result: CheckResult) -> tuple[str, ...]:
    evidence = result.evidence
    interval = evidence.interval
    unit = f" {evidence.unit}" if evidence.unit and evidence.value is not None else ""
    return (
        paint(_mark(result), result.status),
        result.check.name if result.check.blocking else f"{result.check.name} *",
        f"{number(evidence.value)}{unit}" if evidence.value is not None else "",
        f"{number(interval.low)} to {number(interval.high)}" if interval else "",
        str(result.limit or ""),
        number(evidence.n) if evidence.n else "",
    )


def _leaderboard(run: Run) -> None:
    # The winner stands twice: as its training left it, and as it was selected.
    made = values_of(run, Candidate)
    candidates = list({c.family: c for c in made}.values())
    winner = made[-1].family if len(made) > len(candidates) else ""
    if not candidates:
        return
    sign = -1 if candidates[0].higher_is_better else 1
    candidates.sort(key=lambda c: (not c.scores, sign * c.mean))
    data("")
    table(
        ("", "family", candidates[0].metric, "on folds", "trials", "cost", ""),
        [
            (
                "★" if c.family == winner else "",
                c.family,
                number(c.mean) if c.scores else "out",
                " ".join(number(s, digits=3) for s in c.scores),
                number(c.trials),
                number(c.cost, digits=3),
                c.failed,
            )
            for c in candidates
        ],
        right=(2, 4, 5),
    )


def _checks(run: Run) -> None:
    results = results_of(run)
    if not results:
        return
    # A contract has a result a rule; those that hold without a bad row are counted, not listed.
    quiet = [r for r in results if r.check.type == "contract" and r.status == "passed" and not r.evidence.value]
    listed = [r for r in results if r not in quiet]
    data("")
    if listed:
        print_checks(listed)
    if quiet:
        data(f"{MARKS['passed']} {plural(len(quiet), 'contract rule')} without a bad row")


def _quarantine(run: Run) -> None:
    for held in values_of(run, TableVersion):
        if held.name.endswith(".quarantine") and held.rows:
            data("")
            text = f"{plural(held.rows, 'row')} in quarantine: {held.name}"
            data(f"{text}  (modelyard show {held.name})")
