"""`modelyard serve`: serve the champion over HTTP, in a process of its own."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.actor import user
from modelyard._kit.digest import short
from modelyard._kit.errors import UserError
from modelyard.cli.arguments import port
from modelyard.cli.declaring import check_declared, declaration
from modelyard.cli.output import say
from modelyard.cli.project import FILE, endpoint_in, load_spec, open_existing
from modelyard.cli.units import add_unit, write

if TYPE_CHECKING:
    from modelyard.store import Store

__all__ = ["LOADS", "add", "run"]

LOADS = (
    "modelyard.deploy.aliases",
    "modelyard.deploy.local",
    "modelyard.security.seal",
    "modelyard.security.tokens",
    "modelyard.serving.supervisor",
    "modelyard.spec",
)


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "serve",
        help="serve the champion over HTTP",
        description="Serve the model that an alias points at: POST /predict with named columns, and the Open Inference "
        "Protocol v2 under /v2. Several files share a port: a model each, found by its name. The bundle's signature "
        "and every byte are checked first. Everything but health wants a token; on a terminal the first one is made "
        "for you and shown there. The server follows the alias: when it moves, the new model is checked and tried, and "
        "takes over without a lost request. SIGTERM or Ctrl-C answers what is under way, logs it and ends.",
        epilog="example:\n  modelyard serve --port 8080\n"
        '  curl -H "Authorization: Bearer $TOKEN" -d \'{"rows": [{...}]}\' http://127.0.0.1:8080/predict\n'
        "  modelyard serve prod --port 8090\n"
        "  modelyard serve -f income/modelyard.yaml -f bikes/modelyard.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "endpoint",
        nargs="?",
        default="",
        metavar="ENDPOINT",
        help="which, where there are several; or the name of a stage, with several files one of each",
    )
    parser.add_argument("--alias", default="champion", choices=["champion", "challenger"], help="default: champion")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=port, default=8080, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--grpc-port", type=port, metavar="N", help="port for gRPC, 0 for a free one (default: no gRPC)"
    )
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="processes that share the port (default: %(default)s)"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate in PEM: the server speaks HTTPS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of the certificate in PEM")
    parser.add_argument(
        "--client-ca", type=Path, metavar="FILE", help="CAs in PEM: clients must have a certificate of one of them"
    )
    add_unit(parser)
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        metavar="FILE",
        help="the declaration; several share the port, and the first answers requests that name no model "
        f"(default: {FILE})",
    )


def run(args: argparse.Namespace) -> int:
    """Serve the champion, or have systemd do it."""
    from modelyard.serving.supervisor import checked

    checked(args.processes)
    return _become(args) if args.systemd is None else _systemd(args)


def _become(args: argparse.Namespace) -> int:
    """Find the champions and become their server."""
    from modelyard.deploy.aliases import pointed
    from modelyard.deploy.local import command, telling
    from modelyard.deploy.runtime import undecided

    told = []
    files = _files(args)
    # What the file says of access counts; one that is wrong, or not there, serves nothing rather than too much.
    specs = [declaration(one) for one in files]
    for file, spec in zip(files, specs, strict=True):
        with open_existing(file, model=True) as store:
            deployment = pointed(store, _endpoint(file, store), args.alias)
            check_declared(file, spec, deployment.endpoint)
            declared = spec.deployed(deployment.endpoint) if spec is not None else None
            told.append(telling(store, deployment, declared=declared))
            model = deployment.model
            what = f"{model.family} {short(model.digest)} ({deployment.reason})"
            say(f"{deployment.endpoint}/{deployment.alias} is {what}")
            if declared is not None and (said := undecided(store, model, declared.runtime)):
                say(f"note: {said}")
            _first_token(store, f" -f {file.file}" if file.several else "")
    calls = ["--grpc-port", str(args.grpc_port)] if args.grpc_port is not None else []
    more = [*_certificates(args), *calls]
    line = command(*told, host=args.host, port=args.port, processes=args.processes, more=more)
    # A Ctrl-C that comes before the server can hear it waits until then.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # This process becomes the server: one process to watch, and signals reach it.
    os.execv(line[0], line)  # noqa: S606 - our own command line, no shell


def _systemd(args: argparse.Namespace) -> int:
    """Write a unit that serves the same."""
    from modelyard.automation.systemd import server_name, server_unit
    from modelyard.serving.server import Settings
    from modelyard.store.opening import shared_folder

    # A server that cannot start would be started again every few seconds, and nobody is there to read why.
    Settings((), tls_cert=args.tls_cert, tls_key=args.tls_key, client_ca=args.client_ca).tls()
    line = [sys.executable, "-P", "-m", "modelyard", "serve"]
    endpoints, roots, shared = [], [], []
    for one in _files(args):
        file = Path(one.file).resolve()
        with open_existing(one, model=True) as store:
            endpoints.append(_endpoint(one, store))
            spec = declaration(one)
            check_declared(one, spec, endpoints[-1])
            roots.append(store.root)
        if (folder := shared_folder(roots[-1], file=file.name)) is not None:
            shared.append(folder)
        # A file that the unit names has to be there whenever it is started.
        line += ["-f", str(file)] if spec is not None else []
    # Where there is one file, it may be of a project with several endpoints; several name a stage of each.
    line += [endpoints[0]] if len(endpoints) == 1 else [args.endpoint] if args.endpoint else []
    line += ["--alias", args.alias, "--host", args.host, "--port", str(args.port), "--processes", str(args.processes)]
    if args.grpc_port is not None:
        line += ["--grpc-port", str(args.grpc_port)]
    name = server_name("-".join(endpoints), args.alias)
    text = server_unit(name, roots, [*line, *_certificates(args)], shared=shared)
    write(args.systemd, name, text)
    return 0


def _files(args: argparse.Namespace) -> list[argparse.Namespace]:
    """Return the declarations, each as a verb with one of them has it.

    Raises:
        UserError: One is named twice (`cli-value`), or beside several what is no stage of each.
    """
    files = args.file or [FILE]
    if len(files) > 1 and args.endpoint:
        for file in files:
            stages = load_spec(argparse.Namespace(file=file), files=False).stages
            if args.endpoint not in stages:
                message = f"`{args.endpoint}` names an endpoint, and there are several files"
                hint = "each file names its own endpoint: leave the name out"
                if stages:
                    hint += f", or name a stage that each of them declares; {file} has {', '.join(stages)}"
                raise UserError("cli-value", message, hint=hint)
    places = [Path(file).resolve() for file in files]
    for file, place in zip(files, places, strict=True):
        if places.count(place) > 1:
            raise UserError("cli-value", f"`{file}` is given twice", hint="name each file once")
    return [argparse.Namespace(file=file, endpoint=args.endpoint, several=len(files) > 1) for file in files]


def _endpoint(file: argparse.Namespace, store: Store) -> str:
    """Return the endpoint of a file: where there are several, that which it declares, or that of the stage named."""
    if file.several:
        spec = load_spec(file, files=False)
        file.endpoint = spec.stages.get(file.endpoint, spec.endpoint)
    return endpoint_in(file, store)


def _certificates(args: argparse.Namespace) -> list[str]:
    """Return the options that name files of TLS, with absolute paths."""
    given = {flag: getattr(args, flag.replace("-", "_")) for flag in ("tls-cert", "tls-key", "client-ca")}
    return [word for flag, path in given.items() if path for word in (f"--{flag}", str(path.resolve()))]


def _first_token(store: Store, named: str) -> None:
    """Make the first token on a terminal, else say how it is made; `named`: the option that names the project."""
    from modelyard.records import Draft
    from modelyard.security.tokens import add_token, list_tokens

    if list_tokens(store.root):
        return
    if not sys.stderr.isatty():
        # What is not a terminal is kept: a log, or the journal of a service, that more people read than may ask.
        say(f"nobody has a token yet; make the first with: modelyard token add NAME --role analyst{named}")
        return
    text = add_token(store.root, "local", "analyst")
    payload = {"name": "local", "role": "analyst", "id": text[5:13]}
    store.ledger.append(Draft(kind="token.added", actor=user(), payload=payload))
    say(f"token of `local` (analyst); it is shown this once: {text}")
    say(f"more of them: modelyard token add NAME --role ROLE{named}")
