"""`modelyard nginx`: write what nginx needs to spread requests over several replicas."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from modelyard._kit.errors import UserError
from modelyard.cli.output import as_it_is, json_line, say, write_output
from modelyard.cli.project import add_json

__all__ = ["add", "run"]

_GRPC = "127.0.0.1:8001"


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "nginx",
        help="write the configuration of nginx for several replicas",
        description="Write a configuration of nginx that spreads requests over servers of the same endpoint: the one "
        "with the fewest under way is next, one that fails is left out for a while, and what a replica may have seen "
        "is not sent to another. `/metrics`, also that of one model, is not passed on. Its limits are those of the "
        "servers. Nothing is started.",
        epilog="example:\n  modelyard nginx 10.0.0.1:8080 10.0.0.2:8080 --listen 0.0.0.0:443 \\\n"
        "      --tls-cert site.pem --tls-key site.key -o /etc/nginx/conf.d/modelyard.conf",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("replicas", nargs="+", metavar="HOST:PORT", help="where the servers answer")
    parser.add_argument(
        "--listen", default="127.0.0.1:8000", metavar="HOST:PORT", help="where nginx listens (default: %(default)s)"
    )
    parser.add_argument("--grpc", nargs="+", default=[], metavar="HOST:PORT", help="where the servers answer gRPC")
    parser.add_argument(
        "--grpc-listen", default="", metavar="HOST:PORT", help=f"with --grpc: where nginx does (default: {_GRPC})"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate in PEM: nginx speaks TLS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of the certificate in PEM")
    parser.add_argument("-o", "--output", default="", metavar="FILE", help="write it there (default: stdout)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the configuration."""
    from modelyard.serving.nginx import config

    if args.grpc_listen and not args.grpc:
        raise UserError(
            "cli-value", f"--grpc-listen is `{args.grpc_listen}`, and nothing is to answer there", hint="add --grpc"
        )
    text = config(
        args.replicas,
        listen=args.listen,
        grpc=args.grpc,
        grpc_listen=args.grpc_listen or _GRPC,
        cert=args.tls_cert,
        key=args.tls_key,
    )
    if args.output:
        path = Path(args.output)
        write_output(path, text.encode())
        say(f"written: {path}\nnext: where nginx does not read it yet, add `include {path.resolve()};` to its block")
        say("`http`; then nginx -t && nginx -s reload")
    if args.json:
        json_line({"output": args.output, "config": text})
    elif not args.output:
        as_it_is(text)
    return 0
