"""`modelyard contract`: what callers of the endpoint rely on: describe, ask, generate clients, check, compare, mock."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import short
from modelyard._kit.text import plural
from modelyard.cli.arguments import port
from modelyard.cli.declaring import check_declared, declaration
from modelyard.cli.output import MARKS, as_it_is, data, json_line, paint, say, table, write_output
from modelyard.cli.project import add_file, add_json, endpoint_in, load_spec, open_existing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard.inference import Bundle
    from modelyard.serving.contract.consumer import Consumer
    from modelyard.serving.contract.steps import Given
    from modelyard.serving.limits import Limits

__all__ = ["add", "run"]

_ALIASES = ("champion", "challenger")


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "contract",
        help="what callers of the endpoint rely on: describe, ask, generate clients, check, compare, mock",
        description="The contract between an endpoint and those who call it; what the rows of a table have to keep to "
        "stands in `data.NAME.contract`. `openapi [MODEL]` writes the description that the endpoint's server gives at "
        "GET /openapi.json, `request [MODEL]` a request to begin with, `client [MODEL]` a typed client made of the "
        "description. `init CONSUMER` writes a file of what a consumer relies on, `check [FILE...]` makes its requests "
        "against the real serving code and says which promises do not hold; without a FILE those of "
        "`deploy.consumers`, which each run holds its model against. `diff OLD NEW` says what breaks callers of "
        "one model when another takes its place. `mock [MODEL]` serves made up answers on the loopback: the same row "
        "has the same answer, and refusals are the real ones. MODEL is an alias (default: champion), the first digits "
        "of a digest, or, where no model is asked, a file that `openapi` wrote.",
        epilog="example:\n  modelyard contract openapi -o income.json\n  modelyard contract request > row.json\n"
        "  modelyard contract client --language typescript -o web/src\n"
        "  modelyard contract init billing && modelyard contract check contracts/billing.yaml --against challenger\n"
        "  modelyard contract diff champion challenger\n  modelyard contract mock income.json --seed 7",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=list(_ACTIONS), help="what to do")
    parser.add_argument(
        "names",
        nargs="*",
        default=[],
        metavar="NAME",
        help="`init` needs CONSUMER, `diff` OLD NEW; `check` takes FILE..., the others MODEL, and need none",
    )
    parser.add_argument(
        "-o", "--output", default="", metavar="PATH", help="with `openapi`, `request`, `client`, `init`: write it there"
    )
    parser.add_argument(
        "--oip", action="store_true", help="with `openapi`, `request`: of the Open Inference Protocol, /v2"
    )
    parser.add_argument(
        "--language", default="python", choices=["python", "typescript"], help="with `client` (default: python)"
    )
    parser.add_argument(
        "--against", default="", metavar="MODEL", help="with `check`: the model that is asked (default: champion)"
    )
    parser.add_argument("--endpoint", default="", metavar="NAME", help="which, where there are several")
    parser.add_argument("--port", type=port, default=8081, help="with `mock`: port, 0 for a free one (default: 8081)")
    parser.add_argument("--seed", type=int, default=0, help="with `mock`: another one, other answers (default: 0)")
    parser.add_argument("--token", default="", help="with `mock`: the only token that is taken (default: any)")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Do what is asked."""
    from modelyard._kit.errors import UserError

    action, least, most = _ACTIONS[args.action]
    if not least <= len(args.names) <= most:
        wanted = {"diff": "OLD NEW", "check": "FILE...", "init": "CONSUMER"}.get(args.action, "[MODEL]")
        raise UserError(
            "contract-names",
            f"`contract {args.action}` was given {plural(len(args.names), 'name')}",
            hint=f"modelyard contract {args.action} {wanted}",
        )
    return int(action(args))


def _openapi(args: argparse.Namespace) -> int:
    from modelyard.serving.contract.description import described
    from modelyard.serving.contract.schemas import Endpoint

    served = _served(args, *args.names)
    text = described(Endpoint.of(served.bundle, served.endpoint, served.limits), oip=args.oip)
    if args.output:
        _write(args, {Path(args.output): text})
    else:
        # The same bytes wherever they go; only a terminal wants its line ended.
        as_it_is(text.decode() + "\n" * sys.stdout.isatty())
    return 0


def _request(args: argparse.Namespace) -> int:
    """Write the example of the description: a usual row, by what was seen in training."""
    import json

    routes = _document(args, *args.names)["paths"]
    path = "/v2/models/{model}/infer" if args.oip else "/predict"
    text = json.dumps(routes[path]["post"]["requestBody"]["content"]["application/json"]["example"], ensure_ascii=False)
    if args.output:
        _write(args, {Path(args.output): text.encode()})
    else:
        data(text)
    return 0


def _client(args: argparse.Namespace) -> int:
    from modelyard._kit.files import check_folder
    from modelyard.serving.contract.clients import client_files

    files = client_files(_document(args, *args.names), args.language)
    if args.output:
        folder = Path(args.output)
        check_folder(folder)
        _write(args, {folder / name: text.encode() for name, text in files.items()}, folders=True)
    else:
        data(next(iter(files.values())).rstrip("\n"))
    return 0


def _init(args: argparse.Namespace) -> int:
    from modelyard._kit.errors import UserError
    from modelyard.serving.contract.description import description
    from modelyard.serving.contract.schemas import Endpoint
    from modelyard.serving.contract.starting import contract_text, file_name

    served = _served(args)
    endpoint = Endpoint.of(served.bundle, served.endpoint, served.limits)
    path = Path(args.output or f"contracts/{file_name(args.names[0])}.yaml")
    if path.exists():
        raise UserError("contract-exists", f"`{path}` is there already", where=str(path), hint="name another with -o")
    # The place that we choose is ours to make.
    _write(args, {path: contract_text(args.names[0], description(endpoint)).encode()}, folders=not args.output)
    say("next: keep what it reads; `deploy: {consumers: contracts/*.yaml}` holds each new version against it")
    return 0


def _check(args: argparse.Namespace) -> int:
    from modelyard.serving.contract.promises import broken_promises

    consumers = [given.consumer for given in _contracts(args)]
    served = _served(args, args.against)
    # Who calls a stage is asked for under the name that they use.
    under: dict[str, list[Consumer]] = {}
    for consumer in consumers:
        under.setdefault(consumer.endpoint if consumer.endpoint in served.stages else served.endpoint, []).append(
            consumer
        )
    broken = [
        one
        for endpoint, group in under.items()
        for one in broken_promises(group, served.bundle, endpoint, served.limits, roles=served.roles)
    ]
    asked = sum(len(consumer.interactions) for consumer in consumers)
    if args.json:
        json_line({"model": served.bundle.version.digest, "interactions": asked, "broken": broken})
    elif broken:
        rows = [(one.consumer, one.interaction, one.field, one.wanted, one.got) for one in broken]
        table(("consumer", "interaction", "field", "wanted", "got"), rows)
    if not args.json:
        mark = "failed" if broken else "passed"
        kept = f"{plural(len(broken), 'broken promise')}" if broken else "every promise holds"
        which = f"{served.endpoint} {short(served.bundle.version.digest)}"
        say(f"{paint(MARKS[mark], mark)} {which}: {plural(asked, 'interaction')}, {kept}")
    return 1 if broken else 0


def _contracts(args: argparse.Namespace) -> list[Given]:
    """Read the contract files that are named, or those of the declaration."""
    from modelyard._kit.errors import UserError
    from modelyard.spec.consumers import contract_files, load_contract

    if args.names:
        return [load_contract(name) for name in args.names]
    root = Path(args.file).resolve().parent
    patterns = load_spec(args, files=False).deploy.consumers if Path(args.file).exists() else ()
    names = dict.fromkeys(name for pattern in patterns for name in contract_files(pattern, root))
    if not names:
        raise UserError(
            "contract-names",
            "`contract check` was given no file, and `deploy.consumers` names none",
            hint="modelyard contract check FILE...",
        )
    return [load_contract(name, root) for name in names]


def _diff(args: argparse.Namespace) -> int:
    from modelyard.serving.contract.diff import changes

    old, new = (_document(args, name) for name in args.names)
    found = changes(old, new)
    breaking = [change for change in found if change.breaking]
    if args.json:
        json_line({"compatible": not breaking, "changes": found})
    else:
        for change in found:
            data(f"{'breaking' if change.breaking else 'compatible'}  {change.what}: {change.why}")
        what = f"breaking: {plural(len(breaking), 'change')}" if breaking else "compatible"
        say(f"{args.names[0]} to {args.names[1]}: {what}")
    return 1 if breaking else 0


def _mock(args: argparse.Namespace) -> int:
    from modelyard.serving.contract.mock import bundle_of, mock, mock_of
    from modelyard.serving.limits import Limits

    if args.names and _is_file(args.names[0]):
        bundle, limits = bundle_of(_document(args, *args.names), args.seed), Limits()
        endpoint = args.endpoint or bundle.version.name
    else:
        served = _served(args, *args.names)
        bundle, limits, endpoint = mock_of(served.bundle, args.seed), served.limits, served.endpoint
    told = threading.Event()
    before = {one: signal.signal(one, lambda number, frame: told.set()) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        with mock(bundle, endpoint, limits, port=args.port, token=args.token) as host:
            say(f"ready {host.url} endpoint={endpoint} model={short(bundle.version.digest)} mock seed={args.seed}")
            if not args.token:
                say("note: every token is taken, and every answer is made up")
            while not told.wait(0.5):
                pass
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    say(f"stopped endpoint={endpoint} mock")
    return 0


@dataclass(frozen=True, slots=True)
class _Served:
    """A model as it would be served here."""

    bundle: Bundle
    endpoint: str
    limits: Limits
    roles: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()


def _served(args: argparse.Namespace, name: str = "") -> _Served:
    """Open a model by alias or digits, with what the declaration says of its endpoint."""
    from dataclasses import replace

    from modelyard.deploy.aliases import find_model, pointed
    from modelyard.deploy.local import policy_of
    from modelyard.inference import open_bundle
    from modelyard.security.keys import trusted_keys
    from modelyard.serving.guards.policy import read_policy
    from modelyard.serving.limits import Limits

    spec = declaration(args)
    with open_existing(args, model=True) as store:
        endpoint = endpoint_in(args, store)
        check_declared(args, spec, endpoint)
        alias = name or "champion"
        model = pointed(store, endpoint, alias).model if alias in _ALIASES else find_model(store, name)  # type: ignore[arg-type]
        bundle = open_bundle(store.blobs.folder(model.address), trusted=trusted_keys(store.root), version=model)
    if spec is None:
        return _Served(bundle, endpoint, Limits())
    limits = replace(Limits(), policy=read_policy(policy_of(spec.deploy), Path(args.file).parent))
    return _Served(bundle, endpoint, limits, spec.deploy.access.roles, tuple(spec.stages.values()))


def _document(args: argparse.Namespace, name: str = "") -> dict[str, Any]:
    """Return the description of a model, or the one that a file holds."""
    from modelyard.serving.contract.description import description
    from modelyard.serving.contract.schemas import Endpoint

    if not _is_file(name):
        served = _served(args, name)
        return description(Endpoint.of(served.bundle, served.endpoint, served.limits))
    from modelyard._kit.errors import NotFound
    from modelyard.serving.contract.reading import read_description

    path = Path(name)
    if not path.is_file():
        raise NotFound.of("file", name, (str(p) for p in path.parent.iterdir()) if path.parent.is_dir() else ())
    return read_description(path.read_bytes(), name)


def _is_file(name: str) -> bool:
    return name.endswith(".json") or "/" in name


def _write(args: argparse.Namespace, files: dict[Path, bytes], *, folders: bool = False) -> None:
    from modelyard._kit.files import folders_for

    with folders_for(files if folders else ()):
        for path, text in files.items():
            write_output(path, text)
    _tell(args, list(files))


def _tell(args: argparse.Namespace, paths: Sequence[Path]) -> None:
    if args.json:
        json_line({"files": [str(path) for path in paths]})
    else:
        for path in paths:
            data(str(path))


# Action -> what does it, and how many names it takes.
_ACTIONS = {
    "openapi": (_openapi, 0, 1),
    "request": (_request, 0, 1),
    "client": (_client, 0, 1),
    "init": (_init, 1, 1),
    "check": (_check, 0, 1000),
    "diff": (_diff, 2, 2),
    "mock": (_mock, 0, 1),
}
