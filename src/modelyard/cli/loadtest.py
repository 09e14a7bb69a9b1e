"""`modelyard loadtest`: find the rate that an endpoint holds, and whether it leaks memory."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelyard._kit.actor import user
from modelyard._kit.digest import short
from modelyard._kit.errors import ModelyardError, UserError
from modelyard._kit.text import number, plural, size_text
from modelyard.cli.arguments import real, whole
from modelyard.cli.declaring import check_declared, declaration
from modelyard.cli.output import data, json_line, say, table
from modelyard.cli.project import add_file, add_json, endpoint_in, open_existing

if TYPE_CHECKING:
    from modelyard.automation.loadtest import Order, Tested
    from modelyard.records import Deployment
    from modelyard.serving.load.measured import Measured
    from modelyard.store import Store

__all__ = ["add", "run"]

# Rows that are sent in turns, where they are drawn.
_DRAWN = 512
# Seconds that a search takes at least, and in which a soak has the samples that a slope needs.
_SEARCH, _SOAK = 5, 6
# Requests a second whose moments fit into memory, and far more than the client can send.
_FASTEST = 1_000_000


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "loadtest",
        help="find the rate that an endpoint holds, and whether it leaks memory",
        description="Start a server of the model on a free loopback port, with the guards of the file and a request "
        "log of its own, and ask it at rising rates: the knee is the highest rate at which 99 of 100 answers come in "
        "time. Requests come at random moments that are drawn beforehand, and their time counts from then, so that a "
        "slow server cannot hide it. The result is kept as evidence and compared with the last one of this endpoint "
        "on this machine. A server at an address is asked with the token in MODELYARD_TOKEN, an "
        "operator's. Exit code 1: below "
        "--fail-below, no rate held, or memory leaks.",
        epilog="example:\n  modelyard loadtest --p99 10ms --fail-below 90%\n  modelyard loadtest --rate 500 --soak 120",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target",
        nargs="?",
        default="champion",
        metavar="TARGET",
        help="alias, first digits of a model, or http://127.0.0.1:PORT (default: %(default)s)",
    )
    parser.add_argument("--endpoint", default="", metavar="NAME", help="which, where there are several")
    parser.add_argument(
        "--p99",
        default="",
        metavar="DURATION",
        help="time for 99 of 100 answers (default: `deploy.rollout.p99`, that of the last test, or 5 times what an "
        "idle server takes, 10ms at least)",
    )
    parser.add_argument("--errors", default="1%", metavar="SHARE", help="requests without an answer (default: 1%%)")
    parser.add_argument(
        "--fail-below", default="", metavar="LIMIT", help="share of the last knee, as `90%%`, or requests a second"
    )
    parser.add_argument(
        "--seconds",
        type=real(_SEARCH),
        default=60.0,
        metavar="N",
        help=f"time for the search, {_SEARCH} or more (default: 60)",
    )
    parser.add_argument(
        "--most", type=real(1, _FASTEST), default=100_000.0, metavar="RATE", help="highest rate (default: 100000)"
    )
    parser.add_argument(
        "--rate", type=real(0.1, _FASTEST), default=0.0, metavar="RATE", help="ask at this rate alone, no search"
    )
    parser.add_argument(
        "--soak",
        type=real(_SOAK),
        default=0.0,
        metavar="SECONDS",
        help=f"then hold 60%% of the knee, or --rate, and see whether memory grows: {_SOAK} or more",
    )
    parser.add_argument("--rows", default="", metavar="TABLE", help="rows to send (default: drawn as in training)")
    parser.add_argument("--batch", type=whole(1), default=1, metavar="N", help="rows a request (default: 1)")
    parser.add_argument("--connections", type=whole(1), default=64, metavar="N", help="at most (default: 64)")
    parser.add_argument("--processes", type=whole(1), default=1, metavar="N", help="of the server (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of rows and arrivals (default: 0)")
    parser.add_argument(
        "--i-own-this-host", action="store_true", help="ask a machine other than this one: it is yours to load"
    )
    parser.add_argument(
        "--as-caller",
        action="store_true",
        help="load an address although its log keeps the requests as those of a caller: `watch` counts them",
    )
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Test, record, print."""
    from modelyard.automation.loadtest import measure, record, told, why_not_compared
    from modelyard.cli.loads import in_loop, rows_of
    from modelyard.deploy.aliases import bundle_folder
    from modelyard.inference import open_bundle
    from modelyard.security.keys import trusted_keys

    spec = declaration(args)
    declared = spec.deploy if spec is not None else None
    order = _order(args, (declared.rollout.p99 or 0.0) if declared else 0.0)
    with open_existing(args, model=True) as store:
        deployment = _deployment(store, endpoint_in(args, store), "champion" if order.host else args.target)
        check_declared(args, spec, deployment.endpoint)
        model = deployment.model
        bundle = open_bundle(bundle_folder(store, deployment), trusted=trusted_keys(store.root), version=model)
        rows = rows_of(args.rows, bundle, store, count=max(_DRAWN, 8 * args.batch), seed=args.seed)
        apart = why_not_compared(store, deployment.endpoint, order) if order.share is not None else ""
        say(f"asking {args.target if order.host else 'a server of its own'}, {plural(len(rows), 'row')} in turns")
        tested = in_loop(measure(order, store, deployment, rows, declared=declared, tell=_tell))
        payload = told(deployment, order, tested)
        unwritten: ModelyardError | None = None
        try:
            record(store, payload, actor=user())
        except ModelyardError as error:
            # What took minutes is shown all the same.
            unwritten = error
    if args.json:
        json_line(payload)
    else:
        _print(f"{deployment.endpoint} {short(model.digest)}", tested, order.connections)
    if unwritten is not None:
        raise unwritten
    if apart:
        say(f"note: --fail-below {args.fail_below} decided nothing: {apart}; the next test like this one is compared")
    return 1 if any(result.status == "failed" for result in tested.results) else 0


def _order(args: argparse.Namespace, p99: float) -> Order:
    """Check what was asked for.

    Raises:
        UserError: A value cannot be used; or the address is not of this machine, and nobody said that it may be
            loaded (`loadtest-remote`).
    """
    from modelyard._kit.fields import parse_duration, parse_share
    from modelyard.automation.loadtest import Order

    errors = _parsed("--errors", args.errors, parse_share, "1%")
    if not 0 <= errors < 1:
        raise UserError("cli-value", f"--errors is `{args.errors}`", hint="give 0% or more, and less than 100%")
    # None at all is no limit, and 0 would be taken for none.
    p99 = _parsed("--p99", args.p99, parse_duration, "10ms") if args.p99 else p99
    if args.p99 and not p99 > 0:
        raise UserError("cli-value", f"--p99 is `{args.p99}`", hint="give more than nothing, for example `10ms`")
    at_least, share = _least(args)
    host, port = _address(args.target, allowed=args.i_own_this_host) if "://" in args.target else ("", 0)
    if host and args.soak:
        message = "the memory of a server at an address cannot be seen"
        raise UserError("cli-value", message, hint="leave the address out, or --soak")
    return Order(
        host=host,
        port=port,
        token=os.environ.get("MODELYARD_TOKEN", ""),
        p99=p99,
        errors=errors,
        at_least=at_least,
        share=share,
        seconds=args.seconds,
        most=args.most,
        rate=args.rate,
        soak=args.soak,
        batch=args.batch,
        connections=args.connections,
        processes=args.processes,
        seed=args.seed,
        as_caller=args.as_caller,
    )


def _least(args: argparse.Namespace) -> tuple[float | None, float | None]:
    """Return the requests a second, or the share of the last knee, that `--fail-below` names."""
    from modelyard._kit.fields import parse_share

    given = args.fail_below
    if not given.endswith("%"):
        return (_parsed("--fail-below", given, float, "90%` or `2000") if given else None), None
    if args.rate:
        # A rate that was not searched is no knee, and is never compared with one.
        message = f"--fail-below `{given}` is a share of the last knee, and --rate searches for none"
        raise UserError(
            "cli-value", message, hint="leave --rate out, or give requests a second, as `--fail-below 2000`"
        )
    return None, _parsed("--fail-below", given, parse_share, "90%")


def _parsed(name: str, text: str, parse: Callable[[str], float], example: str) -> float:
    try:
        return parse(text)
    except ValueError as error:
        raise UserError("cli-value", f"{name} is `{text}`", hint=f"for example `{example}`") from error


def _address(target: str, *, allowed: bool) -> tuple[str, int]:
    """Return host and port of an address; of another machine only where that is allowed."""
    import ipaddress
    from urllib.parse import urlsplit

    try:
        found = urlsplit(target)
        host, port = found.hostname or "", found.port or 80
    except ValueError:
        host = ""
    if host and found.scheme == "https":
        raise UserError(
            "cli-value",
            f"`{target}` cannot be asked: a load test speaks no TLS",
            hint="leave the address out to test a server of its own, or give the http://HOST:PORT of one behind the "
            "proxy that ends TLS",
        )
    if not host or found.scheme != "http" or found.path not in ("", "/") or found.username is not None:
        raise UserError("cli-value", f"`{target}` cannot be asked", hint="give http://HOST:PORT")
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if not here and not allowed:
        raise UserError(
            "loadtest-remote",
            f"`{host}` is another machine, and a load test takes it from those who need it",
            hint="leave the address out to test a server of its own; if the machine is yours: --i-own-this-host",
        )
    return host, port


def _deployment(store: Store, endpoint: str, target: str) -> Deployment:
    from modelyard.deploy.aliases import find_model, pointed
    from modelyard.records import Deployment

    if target in ("champion", "challenger"):
        return pointed(store, endpoint, "champion" if target == "champion" else "challenger")
    return Deployment(endpoint=endpoint, alias="champion", model=find_model(store, target), revision=1)


def _tell(found: Measured) -> None:
    """Write one step to stderr."""
    wrong = "".join(f"  {count:,} x {code}" for code, count in found.errors.items())
    say(f"{found.rate:>9,.0f}/s  p50 {_ms(found.p50)}  p99 {_ms(found.p99)}{wrong}")


def _ms(seconds: float | None) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds is not None else "-"


def _print(name: str, tested: Tested, connections: int) -> None:
    from modelyard.cli.report import print_checks

    knee, limit = tested.knee, f"99 of 100 answers within {number(tested.p99 * 1000, digits=3)} ms"
    why = {
        "client": "the client could ask no faster",
        "connections": f"requests waited for one of {connections} connections, try --connections {2 * connections}",
        "most": "nothing faster was asked",
        "time": "time is up, give it more by --seconds",
    }
    if knee.at is None:
        data(f"{name} holds no rate: not {knee.steps[-1].rate:,.0f} requests a second with {limit}")
        if knee.limited in ("client", "connections", "time"):
            data(f"it may hold one: {why[knee.limited]}")
    else:
        at = knee.at
        data(f"{name} holds {at.rate:,.0f} requests a second: {limit}")
        if knee.limited:
            data(f"it may hold more: {why[knee.limited]}")
        data("")
        wrong = ", ".join(f"{count:,} x {code}" for code, count in at.errors.items()) or "none"
        cpu = f"{at.cpu_us:,.0f} µs" if at.cpu_us is not None else "n/a"
        times = [_ms(value) for value in (at.p50, at.p90, at.p99, at.p999)]
        table(("p50", "p90", "p99", "p99.9", "CPU a request", "errors"), [(*times, cpu, wrong)])
    data("")
    print_checks(tested.results)
    for result in tested.results:
        if result.check.name == "load.memory" and result.status == "passed":
            held = size_text(result.evidence.details["ends_bytes"])
            data(f"{result.reason}; {held} at the end")
