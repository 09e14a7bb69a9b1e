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
from modelyard.cli.arguments import port
from modelyard.cli.output import say
from modelyard.cli.project import add_file, load_spec, open_existing
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
        "Protocol v2 under /v2. The bundle's signature and every byte are checked first. Everything but health wants a "
        "token; on a terminal the first one is made for you and shown there. The "
        "server follows the alias: when it moves, the new model is checked and tried, and takes over without a lost "
        "request. SIGTERM or Ctrl-C answers what is under way, logs it and ends.",
        epilog="example:\n  modelyard serve --port 8080\n"
        '  curl -H "Authorization: Bearer $TOKEN" -d \'{"rows": [{...}]}\' http://127.0.0.1:8080/predict',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("endpoint", nargs="?", default="", metavar="ENDPOINT", help="which, where there are several")
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
    add_file(parser)


def run(args: argparse.Namespace) -> int:
    """Serve the champion, or have systemd do it."""
    from modelyard.serving.supervisor import checked

    checked(args.processes)
    return _become(args) if args.systemd is None else _systemd(args)


def _become(args: argparse.Namespace) -> int:
    """Find the champion and become its server."""
    from modelyard.deploy.aliases import endpoint_of, pointed
    from modelyard.deploy.local import command
    from modelyard.deploy.runtime import undecided

    # What the file says of access counts; a file that is wrong serves nothing rather than too much.
    declared = load_spec(args, files=False).deploy if Path(args.file).exists() else None
    with open_existing(args, model=True) as store:
        deployment = pointed(store, endpoint_of(store, args.endpoint), args.alias)
        line = command(
            store,
            deployment,
            host=args.host,
            port=args.port,
            processes=args.processes,
            declared=declared,
        )
        model = deployment.model
        say(f"{deployment.endpoint}/{deployment.alias} is {model.family} {short(model.digest)} ({deployment.reason})")
        if declared is not None and (said := undecided(store, model, declared.runtime)):
            say(f"note: {said}")
        _first_token(store)
    line += _certificates(args)
    if args.grpc_port is not None:
        line += ["--grpc-port", str(args.grpc_port)]
    # A Ctrl-C that comes before the server can hear it waits until then.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # This process becomes the server: one process to watch, and signals reach it.
    os.execv(line[0], line)  # noqa: S606 - our own command line, no shell


def _systemd(args: argparse.Namespace) -> int:
    """Write a unit that serves the same."""
    from modelyard.automation.systemd import server_name, server_unit
    from modelyard.deploy.aliases import endpoint_of
    from modelyard.store.opening import shared_folder

    file = Path(args.file).resolve()
    with open_existing(args, model=True) as store:
        endpoint, root = endpoint_of(store, args.endpoint), store.root
    line = [sys.executable, "-P", "-m", "modelyard", "serve", endpoint, "--alias", args.alias, "-f", str(file)]
    line += ["--host", args.host, "--port", str(args.port), "--processes", str(args.processes)]
    if args.grpc_port is not None:
        line += ["--grpc-port", str(args.grpc_port)]
    folder = shared_folder(root, file=file.name)
    name = server_name(endpoint, args.alias)
    text = server_unit(name, root, [*line, *_certificates(args)], shared=[folder] if folder is not None else [])
    write(args.systemd, name, text)
    return 0


def _certificates(args: argparse.Namespace) -> list[str]:
    """Return the options that name files of TLS, with absolute paths."""
    given = {flag: getattr(args, flag.replace("-", "_")) for flag in ("tls-cert", "tls-key", "client-ca")}
    return [word for flag, path in given.items() if path for word in (f"--{flag}", str(path.resolve()))]


def _first_token(store: Store) -> None:
    from modelyard.records import Draft
    from modelyard.security.tokens import add_token, list_tokens

    if list_tokens(store.root):
        return
    if not sys.stderr.isatty():
        # What is not a terminal is kept: a log, or the journal of a service, that more people read than may ask.
        say("nobody has a token yet; make the first with: modelyard token add NAME --role analyst")
        return
    text = add_token(store.root, "local", "analyst")
    payload = {"name": "local", "role": "analyst", "id": text[5:13]}
    store.ledger.append(Draft(kind="token.added", actor=user(), payload=payload))
    say(f"token of `local` (analyst); it is shown this once: {text}")
    say("more of them: modelyard token add NAME --role ROLE")
