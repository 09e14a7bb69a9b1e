"""What most verbs share: where the project is, and its store."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard._kit.errors import NotFound
from modelyard._kit.text import plural
from modelyard.cli.output import say

if TYPE_CHECKING:
    from modelyard.deploy.promotion import DeclaredStage
    from modelyard.spec import Spec
    from modelyard.store import Store

__all__ = [
    "FILE",
    "add_file",
    "add_json",
    "declare_stages",
    "endpoint_in",
    "known_stages",
    "load_if_right",
    "load_spec",
    "open_existing",
    "say_missing",
    "stages_in",
]

FILE = "modelyard.yaml"


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add `-f FILE`, the declaration."""
    parser.add_argument("-f", "--file", default=FILE, metavar="FILE", help=f"the declaration (default: {FILE})")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def load_spec(args: argparse.Namespace, *, files: bool = True) -> Spec:
    """Read and check the declaration named on the command line.

    Args:
        args: With `file`.
        files: Also look whether the data it names are there; verbs that do not train can do without them.
    """
    from modelyard.spec import load

    return load(Path(args.file), files=files)


def load_if_right(args: argparse.Namespace) -> tuple[Spec | None, str]:
    """Read the declaration for a verb that has something to say without it: none, and why, where it is wrong."""
    from modelyard._kit.errors import SpecError

    try:
        return load_spec(args, files=False), ""
    except SpecError as error:
        return None, str(error.problem).partition("\n")[0]


def say_missing(spec: Spec) -> None:
    """Say before anything costs time which words of a person are missing, without which nothing is released."""
    import msgspec

    from modelyard.cards.build import missing_words

    if spec.model is None:
        return
    project = {"purpose": spec.purpose, "owners": msgspec.to_builtins(spec.owners)}
    missing = missing_words(project, msgspec.to_builtins(spec.card))
    if missing:
        say(f"note: the model will not be released before {', '.join(missing)} are filled in")


def open_existing(args: argparse.Namespace, *, model: bool = False) -> Store:
    """Open the store beside the declaration; reading verbs do not make one.

    Args:
        args: With `file`.
        model: Whether the verb can do nothing without a model.

    Raises:
        NotFound: Nothing was ever run here.
        UserError: There is no model and, by what the file declares, there will be none (`model-not-declared`).
    """
    from modelyard.store import open_store, store_exists

    file = Path(getattr(args, "file", FILE)).resolve()
    root = file.parent
    if not store_exists(root, file=file.name):
        raise NotFound(
            "project-not-found",
            f"nothing was run in `{root}` yet",
            hint="run `modelyard run`, or name the file with -f"
            if file.exists()
            else f"there is no `{file.name}` here: `modelyard init` writes one, or name yours with -f",
        )
    store = open_store(root, file=file.name)
    if model and not store.ledger.aliases():
        _expect_model(args)
    return store


def endpoint_in(args: argparse.Namespace, store: Store, *, back: bool = False) -> str:
    """Return the endpoint that is meant: the one named, the only one there is, or that of the file.

    The name of a stage is understood for that of its endpoint, which may have no model yet.

    Args:
        args: With `endpoint` and `file`.
        store: The store beside the file.
        back: Something is taken back there, which must not happen to a stage that nobody has named.

    Raises:
        NotFound: There is none of this name, or none at all (`endpoint-not-found`).
        UserError: There are several, none was named, and the file's is not among them (`endpoint-unclear`), or it has
            several stages (`stage-unclear`).
    """
    from modelyard._kit.errors import UserError
    from modelyard.deploy.aliases import endpoint_of

    named: str = args.endpoint
    known = {deployment.endpoint for deployment in store.ledger.aliases()}
    if named in known or (not named and len(known) < 2):
        return endpoint_of(store, named)
    # Files that share a folder have an endpoint each.
    spec, stages = known_stages(args, store)
    if named:
        found = [endpoint for stage, endpoint in stages if named in (stage, endpoint)]
        if len(found) > 1:
            hint = f"name one: {', '.join(found)}"
            raise UserError("stage-unclear", f"several models have a stage `{named}`", hint=hint)
        if stages and not found:
            raise NotFound.of("endpoint", named, {*known, *(name for stage in stages for name in stage)})
        return found[0] if found else endpoint_of(store, named)
    there = [stage for stage, endpoint in stages if endpoint in known]
    if back and spec is not None and spec.stages and len(there) > 1:
        raise UserError("stage-unclear", "there are several stages", hint=f"name one: {', '.join(there)}")
    return endpoint_of(store, spec.endpoint if spec is not None and spec.endpoint in known else "")


def known_stages(args: argparse.Namespace, store: Store) -> tuple[Spec | None, list[tuple[str, str]]]:
    """Return the declaration, if it is right, and name and endpoint of each stage: its own, or those of the ledger."""
    from modelyard.deploy.promotion import stages_of

    spec = load_if_right(args)[0] if Path(args.file).exists() else None
    if spec is not None and spec.stages:
        return spec, list(spec.stages.items())
    return spec, [(stage.name, endpoint) for endpoint, stage in stages_of(store).items()]


def stages_in(args: argparse.Namespace, store: Store, *, needed: bool) -> tuple[Spec | None, dict[str, DeclaredStage]]:
    """Return the declaration, and each stage of its model by its endpoint, once what it says of them is written down.

    Where there is no file, or it declares none, these are all that the ledger knows.

    Args:
        args: With `file`.
        store: The store beside the file.
        needed: It is about a stage: by a file that is wrong nothing is let in, rather than by what it said before.

    Raises:
        SpecError: The file is wrong, and needed.
        Refused: A stage would be an endpoint that another model has (`stage-taken`).
    """
    from modelyard.deploy.promotion import stages_of

    spec = None
    if Path(args.file).exists():
        spec = load_spec(args, files=False) if needed else load_if_right(args)[0]
    if spec is None or not spec.deploy.stages:
        return spec, stages_of(store)
    return spec, declare_stages(spec, store)


def declare_stages(spec: Spec, store: Store) -> dict[str, DeclaredStage]:
    """Write down what a file says of stages, say so if they were others before, and return those of its model.

    Raises:
        Refused: A stage would be an endpoint that another model has (`stage-taken`).
    """
    from modelyard._kit.actor import user
    from modelyard.deploy.promotion import declare, stages_of

    before = _of_model(stages_of(store), spec.model_name)
    news = declare(store, spec.model_name, spec.deploy.stages, file=spec.path.name, actor=user())
    now = _of_model(stages_of(store), spec.model_name)
    if news and before:
        # What is asked of a model must not change unseen.
        say(f"note: the stages of `{spec.model_name}` have changed, and that is written down: {_asking(spec)}")
        for endpoint, stage in before.items():
            if endpoint not in now and store.ledger.alias(endpoint, "champion") is not None:
                say(f"note: `{stage.name}` is no stage any more, and nobody is asked what enters `{endpoint}`")
    return now


def _of_model(stages: Mapping[str, DeclaredStage], model: str) -> dict[str, DeclaredStage]:
    return {endpoint: stage for endpoint, stage in stages.items() if stage.model == model}


def _asking(spec: Spec) -> str:
    stages = spec.deploy.stages.items()
    told = [
        f"{name} asks for {plural(stage.approvals, 'approval')}" + (" (four eyes)" if stage.four_eyes else "")
        for name, stage in stages
    ]
    return ", ".join(told)


def _expect_model(args: argparse.Namespace) -> None:
    from modelyard._kit.errors import SpecError

    try:
        spec = load_spec(args, files=False)
    except (SpecError, NotFound):
        return  # a file that is wrong is another verb's business
    _ = spec.required_model
