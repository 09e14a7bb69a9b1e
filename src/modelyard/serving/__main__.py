"""`python -m modelyard.serving`: one or several endpoints on one port."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard._kit.errors import ModelyardError

if TYPE_CHECKING:
    from modelyard.serving.opened import Told

__all__ = ["AND", "main"]

# Stands between what is said of one endpoint and of the next.
AND = "--and"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve bundles and return the exit code."""
    first, *more = _split(sys.argv[1:] if argv is None else argv)
    one = _endpoint_options()
    parser = argparse.ArgumentParser(
        prog="python -m modelyard.serving",
        description="Serve one sealed bundle over HTTP. After --and follow the options of another endpoint, which has "
        "its own --bundle, --project and so on and shares the port.",
        parents=[one],
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument("--grpc-port", type=int, help="port for gRPC, 0 for a free one (default: none)")
    parser.add_argument("--processes", type=int, default=1, help="processes that share the port (default: 1)")
    parser.add_argument("--tls-cert", type=Path, help="certificate of the server in PEM: it speaks HTTPS")
    parser.add_argument("--tls-key", type=Path, help="private key of the certificate in PEM")
    parser.add_argument("--client-ca", type=Path, help="CAs in PEM: clients must have a certificate of one of them")
    args = parser.parse_args(first)
    others = argparse.ArgumentParser(prog=f"python -m modelyard.serving ... {AND}", parents=[one])
    try:
        from modelyard.serving.server import Settings, serve

        return serve(
            Settings(
                endpoints=tuple(_told(each) for each in (args, *(others.parse_args(words) for words in more))),
                host=args.host,
                port=args.port,
                processes=args.processes,
                tls_cert=args.tls_cert,
                tls_key=args.tls_key,
                client_ca=args.client_ca,
                grpc_port=args.grpc_port,
            )
        )
    except ModelyardError as error:
        sys.stderr.write(f"error{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _endpoint_options() -> argparse.ArgumentParser:
    """Return the options of one endpoint."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--project", type=Path, required=True, help="folder of the project, with its .modelyard")
    parser.add_argument("--code", type=Path, help="folder of the guards' own code (default: that of the project)")
    parser.add_argument("--endpoint", default="", help="name of the endpoint (default: the model's)")
    parser.add_argument(
        "--role", action="append", default=[], help="role that may ask for predictions; may be given several times"
    )
    parser.add_argument(
        "--per-minute", type=int, default=0, help="predictions a token may ask for in a minute (default: any number)"
    )
    parser.add_argument("--policy", default="", help="guards and access as JSON, as `modelyard serve` writes them")
    parser.add_argument("--trace", default="", help="id that ties lines and requests to the run that made the model")
    parser.add_argument(
        "--follow", choices=["champion", "challenger"], help="alias whose moves in the ledger are followed"
    )
    parser.add_argument("--store", default="", help="address of the store (default: the folder of the project)")
    parser.add_argument("--since", type=int, help="number of the newest event then; what is unloaded after it stays so")
    parser.add_argument(
        "--p99", type=float, default=0.0, help="seconds for 99 of 100 answers before a version goes live (default: any)"
    )
    parser.add_argument("--runtime", default="", help="what answers, as JSON (default: as the model was released)")
    parser.add_argument("--beside", type=Path, help="folder of what the runtime reads beside the bundle")
    parser.add_argument("--canary", type=float, default=0.0, help="share of the requests that the challenger answers")
    parser.add_argument("--watch", type=float, default=0.0, help="seconds until a canary that held is the champion")
    parser.add_argument("--ab", default="", help="A/B test as JSON, as `modelyard serve` writes it")
    parser.add_argument("--shadow", action="store_true", help="give the challenger copies of the requests")
    parser.add_argument(
        "--probation",
        type=float,
        default=300.0,
        help="seconds in which a new champion that errs gives its place back, 0 for never (default: %(default)s)",
    )
    return parser


def _told(args: argparse.Namespace) -> Told:
    """Return what is said of one endpoint."""
    from modelyard.serving.guards.policy import read_policy
    from modelyard.serving.limits import Limits
    from modelyard.serving.opened import Told
    from modelyard.serving.versions.rollout import read_plan

    return Told(
        bundle=args.bundle,
        project=args.project,
        endpoint=args.endpoint,
        roles=tuple(args.role),
        limits=Limits(per_minute=args.per_minute, policy=read_policy(args.policy, args.code or args.project)),
        trace=args.trace,
        follow=args.follow,
        store=args.store,
        p99=args.p99,
        since=args.since,
        runtime=args.runtime,
        beside=args.beside,
        plan=read_plan(args.canary, args.watch, args.shadow, args.ab, args.probation),
    )


def _split(words: Sequence[str]) -> list[list[str]]:
    """Return what is said of each endpoint; what is said of the server stands with the first."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word == AND:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


if __name__ == "__main__":
    # Until the server hears it itself, Ctrl-C ends this at once: as an exception it would break modules that are being
    # loaded. Whoever started this has kept it back until here.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    sys.exit(main())
