"""Write the reference pages from the code: verbs, fields, checks, events; `--check` fails where one is old."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parents[1]
HEAD = "<!-- Written by tools/reference.py from the code; do not edit. -->\n\n"

# Kind -> when it is written, and field of the payload -> what it holds. `tests/docs` holds this to what is written.
EVENTS: dict[str, tuple[str, dict[str, str]]] = {
    "run.started": (
        "A run begins.",
        {
            "project": "name of the project",
            "plan": "digest of the plan, which is a blob",
            "environment": "digest of interpreter and libraries, which is a blob",
            "pid": "process that runs it",
            "trace": "32 hex digits that tie the run to its fire, log lines, alerts and requests",
            "fire": "id of the fire that asked for it; only there",
            "prices": "what the machine costs; only where prices are declared",
            "backfill": "the step whose older partitions are run; only of a backfill",
        },
    ),
    "run.finished": (
        "A run ends; one whose process died is closed by the next run.",
        {
            "status": "`succeeded`, `failed`, `cancelled` (Ctrl-C, SIGTERM), `interrupted` (its process died), "
            "`skipped` (stale data) or `stopped` (budget spent)",
            "reason": "why it did not succeed",
            "result": "digest over the tables and models that were made; not for `interrupted`",
            "cut": "name of a step that was under way -> what it had used; only there",
        },
    ),
    "step.started": ("A step begins to run.", {"key": "its output key"}),
    "step.finished": (
        "A step has run and its outputs are stored.",
        {
            "key": "its output key",
            "outputs": "output name -> the value as plain JSON",
            "made_of": "ingredient of the key -> its digest",
            "seconds": "wall time",
            "cpu_seconds": "CPU time",
            "usage": "CPU, memory, GPU and disk that it used",
            "asked_cpus": "cores that it asked for; only of steps in a process of their own",
            "source": "digest of the blob that tells of the user's files its function is made of; only there",
            "notes": "what was done otherwise than asked, in sentences (a CPU for a GPU, fewer cores); only there",
            "state": "what the probe of a measuring step saw; only there",
        },
    ),
    "step.cached": (
        "The key of a step is known, so it does not run.",
        {
            "key": "its output key",
            "outputs": "as the step that ran left them",
            "made_of": "ingredient of the key -> its digest",
            "from_seconds": "wall time of the step that ran",
            "seconds": "0",
            "cpu_seconds": "0",
            "source": "as in `step.finished`",
            "state": "as in `step.finished`",
        },
    ),
    "step.retried": (
        "An attempt at a step failed and another will follow.",
        {
            "key": "its output key",
            "attempt": "number of the attempt that failed, 1 for the first",
            "waits": "seconds until the next one",
            "seconds": "wall time",
            "usage": "CPU, memory, GPU and disk that it used",
            "notes": "as in `step.finished`; only there",
            "error": "as in `step.failed`",
        },
    ),
    "step.skipped": (
        "The data are stale, so a step did not run.",
        {"reason": "why", "saved": "what it used the last time it ran; none if it never did"},
    ),
    "step.failed": (
        "A step raised an error; its run goes on only with what is under way.",
        {
            "key": "its output key; empty if it failed before it began",
            "seconds": "wall time",
            "usage": "CPU, memory, GPU and disk that it used",
            "notes": "as in `step.finished`; only there",
            "error": "`code`, `message`, `where`, `hint`, `exit_code`, `lasting`, `stale` and `trace`",
            "made_of": "ingredient of the key -> its digest; not if it failed before it began",
            "source": "as in `step.finished`; empty for built-in steps",
            "capsule": "digest of the blob it can be replayed from; not if it failed before it began",
        },
    ),
    "fire.queued": (
        "A trigger asks for a run. The ledger takes each key once, so that each fire runs exactly once.",
        {
            "id": "of the fire",
            "key": "what makes it one and the same however often it is seen",
            "trigger": "name of the trigger",
            "kind": "`schedule`, `files`, `blobs`, `sql`, `webhook`, `upstream`, `drift` or `manual`",
            "due": "when it was to be, seconds since 1970 UTC",
            "not_before": "when it may start, where that is later",
            "trace": "32 hex digits that tie it to its runs, log lines, alerts and requests",
            "items": "what changed: `name`, `change` and `version`",
            "seen": "name of an item -> the version it was fired for; empty text: it is gone",
            "payload": "what came with it",
        },
    ),
    "fire.dropped": (
        "A fire will not run: left out on purpose, with the reason.",
        {
            "id": "of the fire",
            "key": "as in `fire.queued`",
            "trigger": "name of the trigger",
            "kind": "as in `fire.queued`",
            "due": "when it was to be",
            "why": "why it does not run",
            "items": "what changed, where it was not queued before",
            "queued": "true if it stood in the queue before",
            "joined": "id of the fire whose run stands for it too: deliveries of a webhook within `debounce`",
            "payload": "what came with it, where it joined another",
        },
    ),
    "trigger.seen": (
        "What a trigger found when it first looked: nothing is fired for it.",
        {"trigger": "its name", "seen": "name of an item -> its version; empty text: it is gone"},
    ),
    "trigger.paused": (
        "A person paused a trigger: what it sees is dropped.",
        {"trigger": "its name", "reason": "why"},
    ),
    "trigger.resumed": ("A person let a paused trigger go on.", {"trigger": "its name", "reason": "why"}),
    "alert.queued": (
        "A message is to be sent. The ledger takes each id once.",
        {
            "id": "of the message; equal for the same cause and target",
            "target": "name of the target; never its address",
            "on": "what it is about: `start`, `stage`, `success`, `failure`, `stuck`, `stale`, `budget`, `drift`, "
            "`anomaly` or `recovered`",
            "urgency": "`low`, `normal` or `high`",
            "key": "name of the trouble, the same each time it comes again",
            "open": "whether it tells of a trouble, which is open until `alert.closed`",
            "cause": "sequence number of the event that it is about; 0 where the clock is the cause",
            "at": "when that was, seconds since 1970 UTC",
            "due": "when it may be sent: later in quiet hours or for a digest",
            "digest": "whether it may share a message with others",
            "title": "one line",
            "text": "the message",
            "facts": "pairs of label and text",
            "escalates": "id of the alert that nobody acknowledged; empty for any other",
            "trace": "32 hex digits that tie it to its fire, run and log lines",
        },
    ),
    "alert.sent": (
        "Messages were handed to their target.",
        {"ids": "which", "target": "name of the target", "note": "what is to be said of it, e.g. a refused address"},
    ),
    "alert.failed": (
        "Messages could not be handed over.",
        {
            "ids": "which",
            "target": "name of the target",
            "attempt": "number of the attempt",
            "error": "why, without addresses and secrets",
            "next": "when it is tried again, seconds since 1970 UTC; 0: it is given up",
        },
    ),
    "alert.closed": (
        "Troubles are over.",
        {"keys": "names of the troubles", "at": "since when, seconds since 1970 UTC"},
    ),
    "alert.acked": (
        "A person knows of an alert: it goes no further and is not repeated.",
        {"id": "of the alert", "reason": "why"},
    ),
    "alert.read": (
        "How far the ledger was read for alerts; a new target is told of nothing before.",
        {"upto": "name of a target -> sequence number of an event"},
    ),
    "daemon.started": (
        "`modelyard up` began on a machine.",
        {"id": "of the daemon", "host": "name of the machine", "pid": "its process", "version": "of Modelyard"},
    ),
    "daemon.stopped": ("`modelyard up` ended.", {"id": "of the daemon", "reason": "why"}),
    "alias.moved": (
        "Champion or challenger points at another model: by a run, `modelyard promote` or `modelyard rollback`.",
        {
            "deployment": "endpoint, alias, model, revision, the model before it, and the reason",
            "admitted": "what let the model into a stage after the first: `stage`, the stage `before`, how many "
            "`approvals` were asked for, who had `approved`; only there",
        },
    ),
    "stages.declared": (
        "Somebody has run, approved or promoted with a file that declares other stages than were known.",
        {
            "model": "name of the model",
            "stages": "lowest first: `name`, `endpoint`, `approvals` and `four_eyes` of each",
            "file": "name of the file",
        },
    ),
    "model.approved": (
        "A person says that a model may enter a stage; the actor of the event.",
        {
            "endpoint": "the endpoint that the stage is",
            "stage": "its name",
            "model": "digest of the model",
            "identity": "of the model with its card: another card is another thing to approve",
            "reason": "why; may be empty",
        },
    ),
    "model.unapproved": (
        "A person takes that back.",
        {
            "endpoint": "the endpoint that the stage is",
            "stage": "its name",
            "model": "digest of the model",
            "identity": "of the model with its card",
            "reason": "why; may be empty",
        },
    ),
    "guard.alarmed": (
        "A server refuses or holds back more rows than `deploy.guards.alarm` allows.",
        {
            "endpoint": "which",
            "process": "host, number and start of the process",
            "share": "part of the rows that was refused or held back",
            "limit": "part of the rows that may be",
            "rows": "rows that were looked at",
            "guards": "guard -> rows that it refused or held back",
            "then": "`kill` if the endpoint was switched off with it, else `tell`",
        },
    ),
    "guard.calmed": (
        "It refuses and holds back as few rows as usual again.",
        {
            "endpoint": "which",
            "process": "host, number and start of the process",
            "share": "part of the rows that was refused or held back",
            "rows": "rows that were looked at",
            "still": "other processes of the endpoint for which it is not over",
        },
    ),
    "endpoint.killed": (
        "Somebody has switched an endpoint off: its servers answer 503 to whoever asks the model.",
        {"endpoint": "which", "reason": "why"},
    ),
    "endpoint.revived": ("An endpoint answers again.", {"endpoint": "which", "reason": "why"}),
    "endpoint.unloaded": (
        "Its servers let go of the model until it is loaded again or they are started anew, as a request wants.",
        {"endpoint": "which", "caller": "who asked for it"},
    ),
    "endpoint.loaded": (
        "Servers that let go of the model take the version again that the alias points at.",
        {"endpoint": "which", "caller": "who asked for it"},
    ),
    "ab.finished": (
        "An A/B test has found which version is better, or that its time is over; written by the server.",
        {
            "endpoint": "which",
            "champion": "digest of the model that answered usually",
            "challenger": "digest of the model that was tried",
            "began": "number of the event that named the challenger",
            "found": "metric; requests, keys, keys with an outcome and share held back of both; difference with "
            "its interval and p, `decision` (`champion`, `challenger` or `none`) and `reason`",
        },
    ),
    "token.added": (
        "A token was made.",
        {"name": "of its owner", "role": "what it may do", "id": "eight signs that tell tokens apart; never the token"},
    ),
    "token.revoked": ("A token was taken away.", {"name": "of its owner", "role": "what it might do", "id": "which"}),
    "predict.finished": (
        "`modelyard predict` has written its output.",
        {
            "endpoint": "whose model answered",
            "alias": "which of its models",
            "model": "digest of the model",
            "table": "what the rows were named by",
            "table_digest": "digest of the rows and of how they were read",
            "rows": "how many",
            "output": "path that was written",
            "output_digest": "digest of the file, or of the manifest of a folder",
            "seconds": "wall time of the last attempt",
        },
    ),
    "watch.finished": (
        "`modelyard watch` has looked at a window of requests.",
        {
            "endpoint": "which was watched",
            "model": "digest of the model",
            "window": "`rows`, those `held` back by a guard, `tests` (rows of load tests, left out), and the "
            "times `from` and `to`",
            "results": "one result a check, with its evidence",
        },
    ),
    "loadtest.finished": (
        "`modelyard loadtest` has measured what an endpoint holds.",
        {
            "endpoint": "which was asked",
            "model": "digest of the model",
            "like": "what has to be alike to compare: machine, cores, limits, rows a request, processes, connections",
            "results": "the knee and the growth of memory, with their evidence: each step, quantiles, errors by code",
        },
    ),
    "runtimes.finished": (
        "`modelyard runtimes` has measured what can answer for a model.",
        {
            "model": "digest of the model",
            "runtime": "what was chosen: `name`, `threads`, and `address` of what it reads beside the bundle; none: "
            "nothing kept to the limits",
            "forced": "whether the limits named it",
            "machine": "processor and cores that it was measured on",
            "result": "the same as the result of a check, with its evidence: each cell, limits, what was left "
            "out and why",
        },
    ),
    "drill.finished": (
        "`modelyard drill` has broken a server of its own and measured what its callers notice.",
        {
            "endpoint": "which was served",
            "model": "digest of the model",
            "like": "what has to be alike to compare: machine, cores, processes, rate, seconds of a fault, deadline",
            "results": "one result a fault and measure, with its evidence; one that says `not tried` and why, of a "
            "fault that could not be brought about",
        },
    ),
    "verify.finished": (
        "`modelyard verify` has measured a run again; `--ledger` alone writes nothing.",
        {"run": "which", "held": "what holds, a sentence each", "faults": "what does not, a sentence each"},
    ),
}


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    body = "".join(_row(*row) for row in rows)
    return _row(*head) + _row(*("---" for _ in head)) + body + "\n" if body else ""


def verbs() -> str:
    """Return every verb with its options; not as argparse prints them, which differs between versions of Python."""
    from modelyard.cli.main import VERBS, parser

    actions = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    about = {choice.dest: choice.help or "" for choice in actions._choices_actions}
    text = f"# The command line\n\n{HEAD}`yard` is short for `modelyard`. `--debug` shows the trace of an error. "
    text += "Exit codes stand in [errors.md](../errors.md).\n\n"
    text += _table(("verb", "what it does"), ((f"[`{v}`](#modelyard-{v})", about[v]) for v in VERBS))
    for verb in VERBS:
        sub = actions.choices[verb]
        options = _table(("argument", "what it is"), (_option(sub, a) for a in sub._actions if a.dest != "help"))
        example = "\n".join(line.strip() for line in (sub.epilog or "").splitlines()[1:])
        text += f"## `modelyard {verb}`\n\n{sub.description}\n\n{options}"
        text += f"```text\n{example}\n```\n\n" if example else ""
    return text.rstrip() + "\n"


def _option(sub: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str]:
    value = str(action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper()))
    names = "`, `".join(action.option_strings) or value
    takes = f" {value}" if action.option_strings and action.nargs != 0 else ""
    words = {**vars(action), "prog": sub.prog}
    return f"`{names}{takes}`", (action.help or "") % words


def fields() -> str:
    """Return every field of the file with what it takes; all limits on a metric have the same fields."""
    from modelyard.checks.metrics import METRICS
    from modelyard.spec import explain
    from modelyard.spec.explain import paths

    metrics = [f"checks.{name}" for name in METRICS]
    known = [p for p in paths() if not p.startswith((*(f"{m}." for m in metrics[1:]),)) and p not in metrics[1:]]
    text = f"# Fields of `modelyard.yaml`\n\n{HEAD}`NAME` stands for a name of your choice. "
    text += "`modelyard explain FIELD` says the same in the terminal, with an example.\n\n"
    for path in ["", *(p for p in known if explain(p).fields)]:
        found = explain(path)
        inside = [
            p for p in known if p in {f"{path}{gap}{n}".strip(".") for gap in (".", ".NAME.") for n in found.fields}
        ]
        title = "checks.METRIC" if path == metrics[0] else path
        text += f"## `{title}`\n\n{found.about}\n\n" if path else "## The file\n\n"
        if path == metrics[0]:
            text += f"The same for each of the [metrics](checks.md#metrics); here for `{path.partition('.')[2]}`.\n\n"
        text += f"```yaml\n{found.example}\n```\n\n" if found.example else ""
        text += _table(("field", "takes", "default", "what it is"), (_field(p) for p in inside))
    return text.rstrip() + "\n"


def _field(path: str) -> tuple[str, ...]:
    from modelyard.spec import explain

    found = explain(path)
    default = "required" if found.required else f"`{found.default}`" if found.default else ""
    return f"`{path.rpartition('.')[2]}`", found.takes, default, found.about


def checks() -> str:
    """Return every kind of check and every metric."""
    from modelyard.checks.kinds import KINDS
    from modelyard.checks.metrics import METRICS
    from modelyard.spec import explain

    text = f"# Checks and metrics\n\n{HEAD}How they work together: [checks](../guides/checks.md).\n\n## Kinds\n\n"
    kinds = {name: kind for name, kind in KINDS.items() if name not in METRICS and name != "metric"}
    text += "A metric's own name is a kind: `- roc_auc: {at_least: 0.9}`. Besides, there are:\n\n"
    text += _table(("kind", "claim"), ((f"[`{name}`](#{name})", kind.about) for name, kind in kinds.items()))
    for name in ("roc_auc", *kinds):
        found = explain(f"checks.{name}")
        text += f"### `{name}`\n\n{found.about}\n\n```yaml\n{found.example}\n```\n\n"
        inside = (_field(f"checks.{name}.{field}") for field in found.fields)
        text += _table(("field", "takes", "default", "what it is"), inside)
    text += "## Metrics\n\n"
    better = {True: "higher", False: "lower", None: ""}
    rows = ((f"`{m.name}`", m.about, ", ".join(m.tasks), better[m.higher_is_better]) for m in METRICS.values())
    return (text + _table(("metric", "what it measures", "problems", "better"), rows)).rstrip() + "\n"


def events() -> str:
    """Return every kind of event with its payload."""
    from modelyard.records.event import EventKind

    kinds = get_args(EventKind)
    if odd := sorted({*kinds} ^ {*EVENTS}):
        raise SystemExit(f"tools/reference.py and records/event.py differ in {', '.join(odd)}")
    text = f"# Events of the ledger\n\n{HEAD}Each event has `seq` (1, 2, 3, ...), `time` (seconds since 1970 UTC), "
    text += (
        "`kind`, `run` and `step` where it belongs to one, `actor` (`user:NAME` or `runner`), `payload`, and `hash`: "
    )
    text += "SHA-256 over the hash before it and every field. `modelyard run --json` prints each as one line.\n\n"
    for kind in kinds:
        about, payload = EVENTS[kind]
        text += f"## `{kind}`\n\n{about}\n\n"
        text += _table(("payload", "what it holds"), ((f"`{name}`", what) for name, what in payload.items()))
    return text.rstrip() + "\n"


PAGES = {
    "docs/reference/cli.md": verbs,
    "docs/reference/fields.md": fields,
    "docs/reference/checks.md": checks,
    "docs/reference/events.md": events,
}


def main() -> int:
    """Write the pages, or with `--check` compare them."""
    old = []
    for name, make in PAGES.items():
        page, text = ROOT / name, make()
        if "--check" in sys.argv[1:]:
            if not page.exists() or page.read_text(encoding="utf-8") != text:
                old.append(name)
        else:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    for name in old:
        print(f"{name} is not what the code says; `make docs` writes it again", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
