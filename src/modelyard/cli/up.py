"""`modelyard up`: run schedules, triggers, the endpoint, the pages and the alerts, until it is stopped."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.arguments import port, whole
from modelyard.cli.output import data, json_line, paint, say
from modelyard.cli.project import FILE
from modelyard.cli.units import add_unit, write

if TYPE_CHECKING:
    from modelyard.automation.daemon import Settings
    from modelyard.automation.notes import Note

__all__ = ["LOADS", "add", "run"]

LOADS = ("modelyard.automation.daemon", "modelyard.spec")

# Bytes after which the log of a daemon in the background is set aside; one such is kept.
_LARGE = 10 << 20


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "up",
        help="run schedules, triggers, the endpoint, the pages and the alerts",
        description="Run everything that one or several projects need in one tree of processes, until Ctrl-C, SIGTERM "
        "or `modelyard down`. What is killed goes on from its finished steps at the next start; several machines may "
        "run it on one store.",
        epilog="example:\n  modelyard up\n  modelyard up -f a/modelyard.yaml -f b/modelyard.yaml --runs 2 --no-ui",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        metavar="FILE",
        help=f"the declaration; may be given several times (default: {FILE})",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of the endpoint (default: %(default)s)")
    parser.add_argument("--port", type=port, default=8080, help="port of the endpoint (default: %(default)s)")
    parser.add_argument("--ui-port", type=port, default=8500, help="port of the pages (default: %(default)s)")
    parser.add_argument(
        "--hooks-host", default="127.0.0.1", help="address where webhooks are received (default: %(default)s)"
    )
    parser.add_argument("--hooks-port", type=port, default=8400, help="port of the webhooks (default: %(default)s)")
    parser.add_argument("--no-serve", action="store_true", help="do not serve the champion")
    parser.add_argument("--no-ui", action="store_true", help="do not serve the pages")
    parser.add_argument(
        "--runs",
        type=whole(1),
        default=1,
        metavar="N",
        help="runs at a time over several projects (default: %(default)s)",
    )
    parser.add_argument(
        "--grace",
        default="30s",
        metavar="TIME",
        help="what the run under way may take to end when this is stopped; then it is cut off, and goes on at the "
        "next start (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print what happens as lines of JSON on stdout")
    parser.add_argument("--detach", action="store_true", help="go on in the background, and return once it is up")
    add_unit(parser)


def run(args: argparse.Namespace) -> int:
    """Be the daemon, or have somebody else start it."""
    settings = _settings(args)
    if args.systemd is not None:
        return _systemd(args, settings)
    if args.detach:
        return _detach(args, settings)
    from modelyard.automation.daemon import Daemon
    from modelyard.automation.notes import Aside
    from modelyard.automation.state import log_file

    aside = Aside(_bounded(json_line if args.json else _print, log_file(settings.files[0].parent)))
    code = Daemon(settings, aside).run()
    if not aside.end():
        # Somebody holds our output; Python would wait for it for ever.
        os._exit(code)
    return code


def _bounded(show: Callable[[Note], None], log: Path) -> Callable[[Note], None]:
    """Return `show`, that before it says more sets the log of a daemon in the background aside when it is large."""

    def shown(note: Note) -> None:
        # Whoever has it elsewhere, or has deleted it, looks after its size.
        with contextlib.suppress(OSError):
            mine, there = os.fstat(sys.stderr.fileno()), log.stat()
            if mine.st_size > _LARGE and os.path.samestat(mine, there):
                shutil.copyfile(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)
        show(note)

    return shown


def _systemd(args: argparse.Namespace, settings: Settings) -> int:
    """Write the unit and say which two commands enable it."""
    from modelyard.automation.systemd import unit, unit_name
    from modelyard.spec import load
    from modelyard.store.opening import shared_folder

    specs = [load(file, files=False) for file in settings.files]
    names = [spec.project for spec in specs]
    name = unit_name(names)
    shared = [folder for spec in specs if (folder := shared_folder(spec.root, file=spec.path.name)) is not None]
    roots = [spec.root for spec in specs]
    write(args.systemd, name, unit(names, roots, _command(args, settings), grace=settings.grace, shared=shared))
    return 0


def _detach(args: argparse.Namespace, settings: Settings) -> int:
    """Start it in a session of its own, and wait until it is up or has ended."""
    import subprocess
    import time

    from modelyard._kit.errors import UserError
    from modelyard.automation.state import log_file, published
    from modelyard.spec import load
    from modelyard.store.disk import explained

    root = load(settings.files[0], files=False).root
    log = log_file(root)
    with explained(log):
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        # Appended to, since it is emptied when it is large.
        with log.open("ab") as out:
            process = subprocess.Popen(
                _command(args, settings), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
    while process.poll() is None:
        state = published(root)
        if state is not None and state.pid == process.pid and state.ready:
            say(f"up as process {process.pid}; it says what it does in {log}")
            data(str(process.pid))
            return 0
        time.sleep(0.05)
    said = log.read_text(errors="replace").strip()
    say(said)
    if process.returncode in (0, 130):
        raise UserError("up-ended", "it ended before it was up", hint=f"see {log}")
    return process.returncode


def _command(args: argparse.Namespace, settings: Settings) -> list[str]:
    """Return the command line that starts the same, wherever it is started."""
    line = [sys.executable, "-P", "-m", "modelyard", "up"]
    for file in settings.files:
        line += ["-f", str(file.absolute())]
    line += ["--host", settings.host, "--port", str(settings.port), "--ui-port", str(settings.ui_port)]
    line += ["--hooks-host", settings.hooks_host, "--hooks-port", str(settings.hooks_port)]
    line += ["--runs", str(settings.runs), "--grace", args.grace]
    flags = {"--no-serve": not settings.serve, "--no-ui": not settings.ui, "--json": args.json}
    return [*line, *(flag for flag, wanted in flags.items() if wanted)]


def _settings(args: argparse.Namespace) -> Settings:
    from modelyard._kit.errors import UserError
    from modelyard._kit.fields import parse_duration
    from modelyard.automation.daemon import Settings

    try:
        grace = 0.0 if args.grace == "0" else parse_duration(args.grace)
    except ValueError:
        raise UserError("cli-value", f"--grace is `{args.grace}`", hint="write it as `30s` or `5m`") from None
    return Settings(
        files=tuple(Path(file) for file in args.file or [FILE]),
        host=args.host,
        port=args.port,
        ui_port=args.ui_port,
        serve=not args.no_serve,
        ui=not args.no_ui,
        hooks_host=args.hooks_host,
        hooks_port=args.hooks_port,
        runs=args.runs,
        grace=grace,
    )


def _print(note: Note) -> None:
    import time

    at = time.strftime("%H:%M:%S", time.localtime(note.time))
    who = f"{note.project}: " if note.project else ""
    line = f"{note.name} | {note.text}" if note.what == "said" else note.text
    say(f"{paint(at, 'dim', sys.stderr)} {who}{line}")
