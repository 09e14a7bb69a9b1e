"""Say what changed between two runs at a step and before it: data, code, parameters, environment.

Every recorded step carries the digests that its key was made of. Where an ingredient differs, what lies under the
digest is looked up: the stored sources, the parameters of the two plans, the libraries, the rows of the tables.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from modelyard._kit.errors import NotFound, Tampered
from modelyard._kit.text import number
from modelyard.pipeline.capsule import opened
from modelyard.pipeline.environment import Environment
from modelyard.pipeline.pairs import counterpart, same_reference
from modelyard.pipeline.partitions import PARAMETER
from modelyard.pipeline.recompute import plan_of
from modelyard.pipeline.sources import Source, changed_files, named_code, read_source
from modelyard.records import Plan, Run, Step, StepRun, TableVersion, read_value
from modelyard.security.redact import redact
from modelyard.store import Store

__all__ = [
    "Change",
    "ChangeKind",
    "TableChange",
    "between",
    "environment_change",
    "source_change",
    "table_changes",
    "upstream",
]

ChangeKind = Literal["data", "code", "parameters", "environment", "world"]

# Lines of a difference that are shown, and changes of columns or libraries that are named.
_LINES = 60
_NAMED = 6


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs at one step.

    Attributes:
        kind: `data`, `code` (of the project), `parameters`, `environment` (interpreter, libraries, Modelyard itself)
            or `world` (an alias that a person moved, what fired the run).
        step: Where it enters first.
        what: One sentence.
        files: Files of the project that differ.
        functions: Functions in them that differ.
        diff: The beginning of the difference, secrets masked.
        values: Name of a parameter or library -> the old and the new value.
    """

    kind: ChangeKind
    step: str
    what: str
    files: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    diff: str = ""
    values: dict[str, tuple[Any, Any]] = {}


class TableChange(msgspec.Struct, frozen=True, kw_only=True):
    """A table with another content in the two runs.

    Attributes:
        name: Step and output.
        before: Rows then.
        after: Rows now.
        gone: Columns that are not there any more.
        new: Columns that were not there.
        retyped: Columns with another type, each as `age Int64 -> String`.
    """

    name: str
    before: int
    after: int
    gone: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = f"{number(self.before)} → {number(self.after)} rows"
        if self.before == self.after:
            rows = f"{number(self.after)} rows as before, other values"
        parts = [rows, *(f"column `{c}` gone" for c in self.gone[:_NAMED])]
        parts += [f"column `{c}` new" for c in self.new[:_NAMED]]
        parts += [f"column {c}" for c in self.retyped[:_NAMED]]
        return f"{self.name}: {', '.join(parts)}"


def upstream(plan: Plan, *targets: str) -> list[str]:
    """Return the targets and the steps that they take values from, directly or not, in the order of the plan."""
    wanted = set(targets)
    for step in reversed(plan.steps):
        if step.name in wanted:
            for ref in step.inputs.values():
                refs = [ref] if isinstance(ref, str) else ref
                wanted.update(one.partition("#")[0] for one in refs)
    return [step.name for step in plan.steps if step.name in wanted]


def between(old: Run, new: Run, store: Store, *targets: str) -> list[Change]:
    """Return what changed from one run to another, in the order of the plan: each thing where it enters first.

    That a partitioned step ran for another period is no change.

    Args:
        old: The earlier run.
        new: The later run.
        store: Where sources, plans and environments are.
        targets: Only what these steps depend on; none: every step.
    """
    plans = _plan(old, store), _plan(new, store)
    known, now = ([step.name for step in plan.steps] for plan in plans)
    found: list[Change] = []
    for name in upstream(plans[1], *targets) if targets else now:
        was = counterpart(name, known, now)
        before, after = _step(old, was), _step(new, name)
        steps = _declared(plans[0], was), _declared(plans[1], name)
        if after is None or steps[1] is None:
            continue
        if steps[0] is None:
            found.append(Change(kind="parameters", step=name, what=f"step `{name}` is new"))
        elif before is not None and before.made_of and after.made_of:
            found += _at(before, after, (steps[0], steps[1]), (old, new), store)
        else:
            # One of them failed before its key was made; what was declared can be compared all the same.
            sources = read_source(before.source if before else "", store), read_source(after.source, store)
            if sources[0] is not None and sources[1] is not None and changed_files(sources[0], sources[1], store):
                found.append(source_change(name, sources[0], sources[1], store))
            found += _parameters(name, steps[0], steps[1])
    return _once(found)


def _once(found: list[Change]) -> list[Change]:
    """Leave out what was said of an earlier step: one edited file changes the code of every step that imports it."""
    seen: set[object] = set()
    kept = []
    for change in found:
        about: object = (change.kind, change.what)
        if change.kind == "environment":
            about = change.kind
        elif change.kind == "code" and change.files:
            about = (change.kind, change.files, change.diff)
        if about not in seen:
            seen.add(about)
            kept.append(change)
    return kept


def _plan(run: Run, store: Store) -> Plan:
    try:
        return plan_of(run, store)
    except (NotFound, Tampered, msgspec.MsgspecError):
        return Plan(project=run.project, steps=())


def _declared(plan: Plan, name: str) -> Step | None:
    return next((step for step in plan.steps if step.name == name), None)


def _step(run: Run, name: str) -> StepRun | None:
    return next((step for step in run.steps if step.name == name), None)


def _at(
    before: StepRun, after: StepRun, steps: tuple[Step, Step], runs: tuple[Run, Run], store: Store
) -> Iterator[Change]:
    """Yield what differs at one step itself; a changed input is told where it comes from."""
    old, new = before.made_of, after.made_of
    differing = {name for name in {*old, *new} if old.get(name) != new.get(name)}
    name = after.name
    then, now = read_source(before.source, store), read_source(after.source, store)
    if differing & {"code", "state"} and then is not None and now is not None and changed_files(then, now, store):
        yield source_change(name, then, now, store)
        differing -= {"code", "state"}
    if name != before.name and steps[0].verb == steps[1].verb:
        # The name of a partition is in the digest of its code.
        differing.discard("code")
    if "code" in differing:
        yield _code(name, steps)
    if "params" in differing:
        yield from _parameters(name, *steps)
    if "environment" in differing:
        yield environment_change(name, old["environment"], _known(new["environment"], store), store)
    if "state" in differing:
        yield _state(name, before, after, steps[1], store)
    if "fire" in differing:
        yield Change(kind="world", step=name, what="another fire asked for the run")
    yield from _wiring(name, *steps)


def source_change(step: str, old: Source, new: Source, store: Store) -> Change:
    """Return how the files of a function differ."""
    files, functions, diffs = [], [], []
    for file in changed_files(old, new, store):
        files.append(file)
        texts = _text(file, old.files.get(file), store), _text(file, new.files.get(file), store)
        functions += _functions(*texts)
        diffs += list(
            difflib.unified_diff(
                texts[0].splitlines(), texts[1].splitlines(), f"{file} (before)", f"{file} (after)", lineterm="", n=2
            )
        )
    lines = diffs[:_LINES] + ([f"… {len(diffs) - _LINES} more lines"] if len(diffs) > _LINES else [])
    shown = ", ".join(f"`{file}`" for file in files[:_NAMED]) or f"`{new.function}`"
    inside = f" in {', '.join(f'`{f}`' for f in functions[:_NAMED])}" if functions else ""
    return Change(
        kind="code",
        step=step,
        what=f"{shown} changed{inside}",
        files=tuple(files),
        functions=tuple(functions),
        diff=redact("\n".join(lines)),
    )


def _text(file: str, digest: str | None, store: Store) -> str:
    if digest is None:
        return ""
    try:
        data = store.blobs.get(digest)
        if file.endswith(".ipynb"):
            cells = msgspec.json.decode(data)["cells"]
            return "\n".join(f"# cell {i}\n{''.join(cell['source'])}" for i, cell in enumerate(cells, 1))
    except (NotFound, Tampered, msgspec.MsgspecError, KeyError, TypeError):
        return ""
    return data.decode("utf-8", "replace")


def _functions(old: str, new: str) -> list[str]:
    """Return the functions that differ between two versions of a file; `(top level)` for what is outside of them."""
    a, b = _parts(old), _parts(new)
    return [name for name in {**b, **a} if a.get(name) != b.get(name)]


def _parts(text: str) -> dict[str, str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return {"(top level)": text}
    parts: dict[str, str] = {}
    rest = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            parts[node.name] = ast.dump(node)
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    parts[f"{node.name}.{inner.name}"] = ast.dump(inner)
                else:
                    parts[node.name] = parts.get(node.name, "") + ast.dump(inner)
        else:
            rest.append(ast.dump(node))
    if rest:
        parts["(top level)"] = "".join(rest)
    return parts


def _code(name: str, steps: tuple[Step, Step]) -> Change:
    if steps[0].verb != steps[1].verb:
        values: dict[str, tuple[Any, Any]] = {"function": (steps[0].verb, steps[1].verb)}
        what = f"step `{name}` calls `{steps[1].verb}`, before it was `{steps[0].verb}`"
        return Change(kind="code", step=name, what=what, values=values)
    if steps[1].verb.startswith("modelyard."):
        return Change(kind="environment", step=name, what="Modelyard itself changed")
    return Change(kind="code", step=name, what=f"the code of `{steps[1].verb}` changed")


def _parameters(name: str, old: Step, new: Step) -> Iterator[Change]:
    a, b = _flat(old.params), _flat(new.params)
    if old.name != new.name:
        a[PARAMETER] = b.get(PARAMETER)
    values = {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}
    if old.outputs != new.outputs:
        values["outputs"] = (list(old.outputs), list(new.outputs))
    if values:
        named = [f"`{key}` {_short(x)} → {_short(y)}" for key, (x, y) in values.items()]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        yield Change(kind="parameters", step=name, what=f"{', '.join(named[:_NAMED])}{more}", values=values)


def _wiring(name: str, old: Step, new: Step) -> Iterator[Change]:
    for parameter in {**old.inputs, **new.inputs}:
        was, now = old.inputs.get(parameter), new.inputs.get(parameter)
        if not same_reference(was, now):
            what = f"input `{parameter}` comes from {_short(now)}, before from {_short(was)}"
            yield Change(kind="parameters", step=name, what=what, values={parameter: (was, now)})


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return nested parameters under dotted names."""
    if isinstance(value, dict) and value:
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= _flat(inner, f"{path}.{key}" if path else str(key))
        return flat
    return {path: value}


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = redact(msgspec.json.encode(value).decode())
    return text if len(text) <= 80 else f"{text[:77]}…"


def environment_change(name: str, old: str, now: Environment | None, store: Store) -> Change:
    """Return how an environment differs from a recorded one; `now` none: it is not known either."""
    then = _known(old, store)
    if then is None or now is None:
        return Change(kind="environment", step=name, what="interpreter, machine or libraries changed")
    said = then.changes(now)
    values: dict[str, tuple[Any, Any]] = {}
    for one in said:
        what, _, versions = one.partition(" ")
        was, _, is_ = versions.partition(" -> ")
        values[what] = (was, is_)
    more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return Change(kind="environment", step=name, what=f"{', '.join(said[:_NAMED])}{more}", values=values)


def _known(digest: str, store: Store) -> Environment | None:
    try:
        return msgspec.json.decode(store.blobs.get(digest), type=Environment)
    except (NotFound, Tampered, msgspec.MsgspecError):
        return None


def _state(name: str, before: StepRun, after: StepRun, step: Step, store: Store) -> Change:
    """Say what a probe saw change: for a source its data, else something outside that a person may move."""
    if code := named_code(step):
        return Change(kind="code", step=name, what=f"the code of `{code}` changed")
    if step.verb.startswith("modelyard.data."):
        said = [str(table) for table in _tables(before, after)] + _new_files(before, after, step, store)
        return Change(kind="data", step=name, what="; ".join(said) or f"the source of `{name}` changed")
    if step.verb.startswith("modelyard."):
        return Change(kind="world", step=name, what=f"what step `{name}` looks at outside changed: {step.about}")
    return Change(kind="world", step=name, what=f"what the probe of `{name}` sees outside changed")


def _new_files(before: StepRun, after: StepRun, step: Step, store: Store) -> list[str]:
    """Name the files that a failed load found and the one before had not read."""
    from modelyard.data.loading import part_digest, reading_of

    if not after.capsule or "source" not in step.params:
        return []
    reading = reading_of(step.params["source"], step.params.get("types") or {})
    try:
        state = opened(store, after.capsule).task.state
    except (NotFound, Tampered, msgspec.MsgspecError):
        return []
    known = {
        part for raw in before.outputs.values() if isinstance(t := read_value(raw), TableVersion) for part in t.parts
    }
    files = state.get("files", []) if isinstance(state, dict) else []
    named = [f"`{file['path']}`" for file in files if part_digest(file["sha256"], reading) not in known]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return [f"new or changed: {', '.join(named[:_NAMED])}{more}"] if named else []


def table_changes(old: Run, new: Run, names: list[str]) -> list[TableChange]:
    """Return the tables of these steps whose content differs between two runs."""
    found = []
    known, now = ([step.name for step in run.steps] for run in (old, new))
    for name in names:
        before, after = _step(old, counterpart(name, known, now)), _step(new, name)
        if before is not None and after is not None:
            found += _tables(before, after)
    return found


def _tables(before: StepRun, after: StepRun) -> list[TableChange]:
    found = []
    for output, raw in after.outputs.items():
        new, old = read_value(raw), read_value(before.outputs.get(output))
        if not (isinstance(new, TableVersion) and isinstance(old, TableVersion)) or new.digest == old.digest:
            continue
        a, b = ({column.name: column.type for column in table.columns} for table in (old, new))
        found.append(
            TableChange(
                name=new.name,
                before=old.rows,
                after=new.rows,
                gone=tuple(c for c in a if c not in b),
                new=tuple(c for c in b if c not in a),
                retyped=tuple(f"{c} {a[c]} -> {b[c]}" for c in a if c in b and a[c] != b[c]),
            )
        )
    return found
