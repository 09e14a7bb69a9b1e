"""What cannot stand in `deploy.consumers`, nor in the files that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from modelyard._kit.errors import SpecError
from modelyard.deploy.stages import endpoint_at
from modelyard.spec.declaration import Declaration
from modelyard.spec.outside import pattern_problems
from modelyard.spec.report import Finding

__all__ = ["consumer_rules"]

_AT = "deploy.consumers"


def consumer_rules(root: Path) -> Callable[[Declaration], Iterator[Finding]]:
    """Return the rule of a project, which looks at the files that are named.

    Args:
        root: Folder of the project.
    """

    def rule(d: Declaration) -> Iterator[Finding]:
        if not d.deploy.consumers:
            return
        if d.model is None:
            yield Finding(_AT, "consumers rely on a model, and the file declares none", "add `model`", ("model",))
        seen: set[str] = set()
        for index, pattern in enumerate(d.deploy.consumers):
            at = f"{_AT}.{index}"
            wrong = list(pattern_problems(pattern, root, "consumers: contracts/*.yaml"))
            for code, message, hint in wrong:
                yield Finding(at, message, hint, code=code)
            if not wrong:
                yield from _contracts(d, at, pattern, root, seen)

    return rule


def _contracts(d: Declaration, at: str, pattern: str, root: Path, seen: set[str]) -> Iterator[Finding]:
    # Few declare one, and loading what reads them takes its time.
    from modelyard.spec.consumers import contract_files, load_contract

    files = contract_files(pattern, root)
    if not files:
        yield Finding(at, f'"{pattern}" is a folder', f"name its files: `{pattern.rstrip('/')}/*.yaml`")
    model = d.deploy.endpoint or d.project
    endpoints = [endpoint_at(model, stage) for stage in d.deploy.stages] or [model]
    for name in files:
        if name in seen:
            continue
        seen.add(name)
        try:
            consumer = load_contract(name, root).consumer
        except SpecError as error:
            for problem in error.problems:
                yield Finding(at, f"{problem.where}: {problem.message}", problem.hint, code=problem.code)
            continue
        if consumer.endpoint and consumer.endpoint not in endpoints:
            known = f"endpoint is `{model}`" if endpoints == [model] else f"endpoints are {', '.join(endpoints)}"
            yield Finding(
                at,
                f"{name}: `{consumer.consumer}` relies on `{consumer.endpoint}`, and the {known}",
                "name the files of this endpoint alone, or mend `endpoint` in the file",
                ("deploy.endpoint", "project", "deploy.stages"),
                code="contract-endpoint",
            )
