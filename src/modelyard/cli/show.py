"""`modelyard show`: one thing by its name: a run, a step, a table, a model or a check."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound
from modelyard._kit.text import number, plural, seconds_text
from modelyard.cli.arguments import whole
from modelyard.cli.failure import failure_facts, print_failure
from modelyard.cli.output import MARKS, as_it_is, data, json_line, paint, say, table
from modelyard.cli.project import add_file, add_json, open_existing
from modelyard.cli.report import print_checks, report, results_of
from modelyard.records import (
    Candidate,
    CheckResult,
    Evidence,
    File,
    ModelVersion,
    Run,
    StepRun,
    TableVersion,
    plain,
    read_value,
)

if TYPE_CHECKING:
    from modelyard.store import Store

__all__ = ["add", "run"]

# Of a plain value, so many characters are shown.
_LONGEST = 100
# Runs that are looked through for a name that no finished step has.
_BACK = 50


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "show",
        help="show a run, a step, a table, a model, a check or a file",
        description="Show one thing of the newest run (or of --run): a run id, a step, a table, a check, a file, or "
        "`models`, `tables`, `checks`. Without a name: the newest run. What it lacks, such as an older partition, "
        "is looked for in the runs before it. A file is written to stdout as it is.",
        epilog="example:\n  modelyard show contract.applicants.quarantine --rows 20",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="what to show; or a run, and then")
    parser.add_argument("inside", nargs="?", default="", metavar="STEP", help="what to show of that run")
    parser.add_argument("--run", default="", dest="run_id", metavar="RUN", help="of this run, not of the newest")
    parser.add_argument("--rows", type=whole(0), default=10, help="rows of a table to print (default: 10)")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Find the thing and print it."""
    store = open_existing(args)
    name = args.name
    if name.startswith("run-"):
        args.run_id, name = name, args.inside
    found = _run(store, args.run_id)
    if not name:
        _show_run(found, args.json)
        return 0
    inside = _Inside(found, store, args)
    if (show := inside.look(name)) is None:
        known = set(inside.names)
        # A backfill, or a run since one, has other partitions than the one that is asked for.
        for older in _others(store, found, name):
            inside = _Inside(older, store, args)
            if (show := inside.look(name)) is not None:
                break
            known.update(inside.names)
        else:
            raise NotFound.of("thing to show", name, ["checks", "tables", "models", *known])
        if args.run_id:
            message, hint = f"{found.id} has no `{name}`", f"{older.id} has it: `modelyard show {older.id} {name}`"
            raise NotFound("thing-to-show-not-found", message, hint=hint)
        say(f"of {older.id}, the newest run that has it")
    show()
    return 0


class _Inside:
    """What one run has to show, by name."""

    def __init__(self, run: Run, store: Store, args: argparse.Namespace) -> None:
        self._run, self._store, self._args = run, store, args
        self._results = {r.check.name: r for r in results_of(run)}
        self._versions = _versions(run)
        self._steps = {s.name: s for s in run.steps}

    @property
    def names(self) -> list[str]:
        return [*self._results, *self._versions, *self._steps]

    def look(self, name: str) -> Callable[[], None] | None:
        """Return what prints the thing of this name; none if there is none."""
        store, args = self._store, self._args
        if name == "checks":
            return lambda: _checks(list(self._results.values()), args.json)
        if name in ("tables", "models"):
            return lambda: self._list(name)
        if name in self._results:
            return lambda: _checks([self._results[name]], args.json)
        if len(name) >= 4 and (of_digest := [v for v in self._versions.values() if v.digest.startswith(name)]):
            return lambda: _version(of_digest[-1], store, args)
        if name in self._versions:
            return lambda: _version(self._versions[name], store, args)
        if name in self._steps:
            return lambda: _step(self._steps[name], self._run, store, args.json)
        return None

    def _list(self, name: str) -> None:
        kind = TableVersion if name == "tables" else ModelVersion
        found = [v for v in self._versions.values() if isinstance(v, kind) and not isinstance(v, File)]
        # A step hands on what another made; of each the last is shown, which has its bundle.
        once = {(v.name, v.digest): v for v in found}
        _list(list(once.values()), _aliases(self._store) if name == "models" else {}, self._args.json)


def _others(store: Store, run: Run, name: str) -> Iterator[Run]:
    """Yield the other runs, newest first: all of them if a step of this name is recorded, else the newest."""
    ledger = store.ledger
    recorded = ledger.latest(name) or ledger.latest(name.rpartition(".")[0])
    for listed in ledger.runs(limit=0 if recorded else _BACK):
        if listed.id != run.id and (whole := ledger.run(listed.id)) is not None:
            yield whole


def _run(store: Store, run_id: str) -> Run:
    from modelyard.store.local import settle

    newest = store.ledger.runs(limit=50)
    if not newest:
        raise NotFound("run-not-found", "there is no run yet", hint="`modelyard run` makes the first")
    found = store.ledger.run(run_id or newest[0].id)
    if found is None:
        raise NotFound.of("run", run_id, [r.id for r in newest])
    return settle(found, store)


def _versions(run: Run) -> dict[str, TableVersion | ModelVersion | File]:
    found: dict[str, TableVersion | ModelVersion | File] = {}
    for step in run.steps:
        for output, raw in step.outputs.items():
            value = read_value(raw)
            if isinstance(value, TableVersion | ModelVersion | File):
                found[f"{step.name}.{output}"] = value
    return found


def _show_run(run: Run, as_json: bool) -> None:
    if as_json:
        json_line(run)
        return
    status = paint(run.status, run.status)
    data(f"{run.id}  {status}  {as_text(run.started)}  {seconds_text(run.seconds)}  by {run.actor}")
    if run.reason:
        data(f"  {run.reason}")
    data("")
    rows = [
        (
            paint(MARKS[s.status], s.status),
            s.name,
            s.status,
            seconds_text(s.seconds) if s.seconds else "",
            s.error.get("message", "") if s.error else ", ".join(s.outputs),
        )
        for s in run.steps
    ]
    table(("", "step", "status", "took", "outputs"), rows, right=(3,))
    report(run)


def _step(step: StepRun, run: Run, store: Store, as_json: bool) -> None:
    if as_json:
        json_line(failure_facts(store, run, step) if step.status == "failed" else step)
        return
    data(f"{step.name}  {paint(step.status, step.status)}  {seconds_text(step.seconds)}  key {short(step.key)}")
    if step.error:
        print_failure(store, run, step)
    for output, raw in step.outputs.items():
        data(f"  {output:<14} {_in_short(raw, f'{step.name}.{output}')}")
    data("\nmade of")
    for name, digest in step.made_of.items():
        data(f"  {name:<20} {short(digest)}")


def _in_short(raw: Any, name: str) -> str:
    """Say in one line what a step gave."""
    match read_value(raw):
        case TableVersion() as table_version:
            size = f"{plural(table_version.rows, 'row')}, {plural(len(table_version.columns), 'column')}"
            return f"table {short(table_version.digest)}, {size}"
        case ModelVersion() as model:
            return f"model {short(model.digest)}, {model.family} as {model.format}"
        case File() as file:
            return f"file {short(file.digest)}, {number(file.size)} bytes (modelyard show {name})"
        case Candidate() as one:
            return f"{one.metric} {number(one.mean)} over {len(one.scores)} folds with {one.params}"
        case CheckResult() as result:
            return f"{result.status}: {result.reason}"
        case Evidence() as evidence:
            return f"{evidence.measure} {number(evidence.value)} on {number(evidence.n)} rows"
        case [_, _, *_] as values:
            return plural(len(values), "value")
        case _ if isinstance(raw, dict) and "kind" in raw:
            return str(raw["kind"])
    return textwrap.shorten(raw if isinstance(raw, str) else json.dumps(raw), _LONGEST)


def _checks(results: list[Any], as_json: bool) -> None:
    if as_json:
        json_line(results)
        return
    print_checks(results)
    if len(results) == 1:
        data("")
        data(_pretty(plain(results[0].evidence)))


def _aliases(store: Store) -> dict[str, str]:
    """Return by the digest of a model what points at it now; of both aliases the champion."""
    now = {(d.endpoint, d.alias): d for d in store.ledger.aliases()}
    return {d.model.digest: d.alias for d in sorted(now.values(), key=lambda d: d.alias, reverse=True)}


def _list(versions: list[TableVersion | ModelVersion], aliases: dict[str, str], as_json: bool) -> None:
    """Print versions; `aliases`: by the digest of a model what points at it."""
    if as_json:
        json_line(versions)
        return
    rows = []
    for v in versions:
        what = f"{plural(v.rows, 'row')}" if isinstance(v, TableVersion) else f"{v.family} as {v.format}"
        rows.append((v.name, short(v.digest), what, v.address[:40], aliases.get(v.digest, "")))
    table(("name", "digest", "what", "address", "alias" if aliases else ""), rows)


def _version(version: TableVersion | ModelVersion | File, store: Store, args: argparse.Namespace) -> None:
    if isinstance(version, File):
        if args.json:
            json_line(version)
        else:
            as_it_is(store.blobs.get(version.digest))
        return
    if isinstance(version, ModelVersion):
        json_line(version) if args.json else data(_pretty(plain(version)))
        return
    import polars as pl

    frame = store.tables.read(version).head(max(0, args.rows)).collect()
    if args.json:
        as_it_is(frame.write_ndjson())
        return
    data(f"{version.name}  {plural(version.rows, 'row')}  {short(version.digest)}  {version.address}")
    with pl.Config(tbl_cols=8, tbl_rows=-1, tbl_hide_dataframe_shape=True, fmt_str_lengths=50, tbl_width_chars=160):
        data(str(frame))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
