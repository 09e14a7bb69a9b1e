"""`modelyard status`: the daemon, what is served, the newest runs, what waits and what comes next."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.text import plural, seconds_text
from modelyard.cli.output import MARKS, data, json_line, paint, table
from modelyard.cli.project import add_file, add_json, load_if_right, open_existing
from modelyard.cli.report import print_runs

if TYPE_CHECKING:
    from modelyard.automation.state import Seen
    from modelyard.automation.status import Load, Now, Status

__all__ = ["LOADS", "add", "run"]

LOADS = ("modelyard.automation.queue", "modelyard.automation.status", "modelyard.automation.triggers")

_MIB = 1 << 20
_ENDED = {"failed": "failed", "interrupted": "was cut off"}


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "status",
        help="the daemon, what is served, the newest runs, what waits and what comes next",
        description="Say which daemons there are, on this machine and on others, with the processes of the one here; "
        "which model is served since when; which run is under way and how far it is; what waits and what comes next; "
        "and how the five newest runs ended. Exit code 1 when no daemon runs.",
        epilog="example:\n  modelyard status --json | jq .queued",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print how the project stands."""
    from modelyard.automation.status import loads, status

    spec, problem = load_if_right(args)
    with open_existing(args) as store:
        now = status(spec, store, problem=problem)
    load = {seen.id: loads(seen) for seen in now.daemons}
    if args.json:
        json_line({**msgspec.to_builtins(now), "load": load})
    else:
        _print(now, load)
    return 0 if any(seen.status == "running" for seen in now.daemons) else 1


def _print(now: Status, load: dict[str, dict[str, Load]]) -> None:
    if now.problem:
        data(f"{paint('wrong', 'red')}   the declaration cannot be read: {now.problem}")
    if not now.daemons:
        data(f"{now.project}: no daemon runs; `modelyard up` starts one")
    for seen in now.daemons:
        _daemon(now, seen, load[seen.id])
    _models(now)
    _stages(now)
    for off in now.off:
        data(f"{paint('off', 'red')}     {off.endpoint} answers nobody {off}")
    for gone in now.unloaded:
        data(f"{paint('off', 'red')}     {gone.endpoint} is unloaded {gone}")
    data(_under_way(now.run, now.time))
    holds = {
        fire: why
        for seen in now.daemons
        if seen.here and seen.status != "lost"
        for fire, why in seen.here.holds.items()
    }
    for fire in now.queue[:3]:
        begins = f", not before {as_text(opens)}" if (opens := fire.opens(now.time)) > now.time else ""
        cut_off = ", its run was cut off" if fire.run else ""
        why = f": {holds[fire.id]}" if fire.id in holds else ""
        data(f"waits   {fire.trigger}, since {as_text(fire.queued)}{begins}{cut_off}{why}")
    if now.queued > len(now.queue[:3]):
        data(f"waits   {plural(now.queued - len(now.queue[:3]), 'fire')} more")
    for row in now.next:
        data(f"next    {row.name}: {row.next_text}")
    for row in now.failing:
        data(f"{paint('looks', 'red')}   {row.name} fail since {as_text(row.failing)}: {row.error}")
    _runs(now)


def _models(now: Status) -> None:
    for endpoint, pids in now.servers.items():
        many = "processes" if len(pids) > 1 else "process"
        data(f"server  {endpoint} is served without a daemon: {many} {', '.join(map(str, pids))}")
    led = {to.endpoint for to in now.served if to.alias == "champion"}
    for to in now.served:
        asked = f", last asked {as_text(to.asked)}" if to.asked else ""
        moved = "the champion moved after it was named" if to.endpoint in led else "there is no champion"
        why = to.reason if to.tried else f"not tried: {moved}"
        why = f" ({why})" if why else ""
        data(
            f"model   {to.endpoint}/{to.alias} -> {to.family} {short(to.model)}{why}, since {as_text(to.since)}{asked}"
        )


def _stages(now: Status) -> None:
    for one in now.stages:
        if not one.next:
            continue
        by = f", of {', '.join(given.actor for given in one.approved)}" if one.approved else ""
        has = f", {len(one.approved)} of {plural(one.approvals, 'approval')}{by}" if one.approvals else ""
        data(f"stage   {one.endpoint} may get {short(one.next)}{has}: `{one.then}`")


def _runs(now: Status) -> None:
    if not now.runs:
        data("no run yet; `modelyard run` makes the first")
        return
    data("")
    print_runs(now.runs)
    newest = now.runs[0]
    if newest.status in ("failed", "interrupted"):
        data(f"`modelyard show {newest.id}` says why it {_ENDED[newest.status]}")


def _daemon(now: Status, seen: Seen, load: dict[str, Load]) -> None:
    mark = paint(MARKS["succeeded"], "succeeded") if seen.status == "running" else paint(MARKS["failed"], "failed")
    whole = load.get("daemon")
    memory = f", {whole.memory / _MIB:.0f} MiB in {whole.processes} processes" if whole else ""
    up = f"up {_for(time.time() - seen.since)}" if seen.status != "lost" else f"began {as_text(seen.since)}"
    place = f"process {seen.pid} on {seen.host}"
    data(f"{mark} {now.project}: {seen.status}, {place}, {up}{memory}")
    here = seen.here
    if here is None or seen.status == "lost":
        return
    if seen.status == "stuck":
        data(f"  it was last heard of {_for(time.time() - here.beat)} ago")
    if here.problem:
        data(f"  {paint(here.problem, 'red')}")
    rows = []
    for child in here.children:
        used = load.get(child.name)
        again = f", again in {max(0.0, child.next - time.time()):.0f} s" if child.next else ""
        rows.append(
            (
                f"  {child.name}",
                f"{child.state}{again}",
                str(child.pid or ""),
                _for(time.time() - child.since) if child.pid else "",
                str(child.restarts),
                f"{used.memory / _MIB:.0f}" if used else "",
                f"{used.cpu_seconds:.1f}" if used else "",
                child.ended or (child.said[-1] if child.said else ""),
            )
        )
    table(("  child", "state", "pid", "since", "restarts", "MiB", "cpu s", "last"), rows, right=(2, 3, 4, 5, 6))
    if here.hooks:
        data(f"  webhooks at {here.hooks}NAME")


def _under_way(run: Now | None, now: float) -> str:
    if run is None:
        return "no run is under way"
    steps = f": {', '.join(run.steps)}" if run.steps else ""
    asked = f" for {run.trigger}" if run.trigger else f" by {run.actor}" if run.actor else ""
    of = f" {run.done} of {run.total} steps" if run.total else ""
    where = f" ({run.host}, process {run.pid})" if run.host else ""
    return f"run     {run.run}{asked}, {_for(now - run.started)},{of}{steps}{where}"


def _for(seconds: float) -> str:
    """Return how long something lasts, in words."""
    if seconds < 3600:
        return seconds_text(max(0.0, seconds))
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    return f"{days} d {hours} h" if days else f"{hours} h {rest // 60} min"
