"""Find the verb, run it, and turn what went wrong into one clear message and an exit code."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import ModuleType

from modelyard import __version__
from modelyard._kit.errors import ModelyardError, UserError, near
from modelyard._kit.stopping import forget, stopped
from modelyard.cli.arguments import Parser, read
from modelyard.cli.output import STDOUT, say, tell

__all__ = ["VERBS", "main", "parser"]

# Verb -> what it does, in the order in which a project meets them. Each has a module of its name here.
# What its `run` begins to load is named there in `LOADS`: Ctrl-C ends the process at once until it is loaded.
VERBS = {
    "init": "write a small project that runs",
    "check": "check the file without running anything",
    "lint": "hold the file against good practice: a score, and the fix for each rule",
    "explain": "explain a field of the file, or an error code",
    "schema": "print the JSON Schema of the file, for editors",
    "plan": "say what a run would do, and why",
    "run": "run the file: data to a served model, skipping what did not change",
    "backfill": "run a partitioned step for every partition of a range",
    "runs": "list the runs",
    "show": "show a run, a step, a table, a model, a check or a file",
    "logs": "what steps and servers said, from trigger to request",
    "replay": "run one recorded step again on the inputs it had",
    "bisect": "find the first bad run, and say what changed there",
    "cost": "what runs and steps cost, and what was wasted",
    "verify": "recompute what was claimed: a card, a bundle, the ledger",
    "card": "show or write the model card",
    "promote": "point an alias at a model, or take a model into the next stage",
    "approve": "say that a model may enter a stage",
    "rollback": "point the champion back at the model before it",
    "serve": "serve the champion over HTTP",
    "nginx": "write the configuration of nginx for several replicas",
    "ab": "how the A/B test of an endpoint stands",
    "loadtest": "find the rate that an endpoint holds, and whether it leaks memory",
    "runtimes": "measure what can answer for a model here, and choose the cheapest within limits",
    "drill": "break a server of one's own, and see what its callers notice",
    "profile": "look into running servers and steps: where their time goes, or what grows in memory",
    "contract": "what callers of the endpoint rely on: describe, generate clients, check, compare, mock",
    "kill": "switch an endpoint off at once",
    "revive": "switch an endpoint on again that was killed",
    "token": "make, list and revoke the tokens that callers need",
    "predict": "answer the rows of a table",
    "watch": "compare the logged requests with the training data",
    "ui": "open the pages",
    "up": "run schedules, triggers, the endpoint, the pages and the alerts",
    "down": "stop what `modelyard up` runs",
    "status": "the daemon, what is served, the newest runs, what waits and what comes next",
    "triggers": "the board of everything that starts runs: fire, pause, resume",
    "alerts": "list alerts, try a target, acknowledge",
    "cancel": "end the run that is under way",
}

# Verbs that make a run.
_RUNS = ("run", "backfill")

# Options that stand without a verb.
_OPTIONS = ("-h", "--help", "--version", "--debug")

_EPILOG = """\
exit codes:
  0 it holds   1 a check or a proof failed   2 the input cannot be used   3 a step broke
  4 somebody else holds the project   5 not allowed   130 stopped by Ctrl-C   143 by SIGTERM

begin with:
  modelyard init my-model && cd my-model && modelyard run
"""


def parser(verbs: Sequence[str] = tuple(VERBS)) -> Parser:
    """Return the parser for these verbs; only their modules are imported."""
    top = Parser(
        prog="modelyard",
        description="One file describes a model; one command takes it from raw data to a served, documented, "
        "watched model, with proof.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"modelyard {__version__}")
    top.add_argument("--debug", action="store_true", help="show the trace of an error")
    sub = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in verbs:
        _module(verb).add(sub)
    return top


def main(argv: Sequence[str] | None = None, *, ready: Callable[[], object] = lambda: None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: What is typed behind `modelyard`; by default what this process was started with.
        ready: Called once all is loaded that the verb begins with, right before it is run.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a star shows a question mark
    debug = "--debug" in arguments
    if debug:
        # It may stand anywhere: people add it to the end of the line that failed.
        arguments.remove("--debug")
    try:
        args = _read(arguments or ["--help"])
    except UserError as error:
        tell(error, verb=_verb(arguments), as_json=_wants_json(arguments))
        return error.exit_code
    args.line = ["modelyard", *arguments]
    return _run(args, ready, debug=debug)


def _wants_json(arguments: Sequence[str]) -> bool:
    """Say whether JSON is asked for on a line that cannot be read; options may be cut short."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(len(word) > 2 and "--json".startswith(word) for word in options)


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        UserError: It names no verb (`cli-unknown-verb`), or what the verb does not take, see `Parser`.
    """
    first = arguments[0].partition("=")[0]
    if first.startswith("-") and first not in _OPTIONS:
        close = [] if first in _of_verbs() else near(first, _OPTIONS, most=1)
        hint = f"did you mean `{close[0]}`?" if close else f"options stand behind the verb: `modelyard VERB {first}`"
        raise UserError("cli-unknown-option", f"`modelyard` has no option `{first}`", hint=hint)
    verb = _verb(arguments)
    if verb and verb not in VERBS:
        close = near(verb, VERBS)
        hint = f"did you mean `{close[0]}`?" if close else "`modelyard --help` lists the verbs"
        raise UserError("cli-unknown-verb", f"there is no verb `{verb}`", hint=hint)
    return read(parser([verb] if verb else tuple(VERBS)), verb, arguments)


def _verb(arguments: Sequence[str]) -> str:
    return next((a for a in arguments if not a.startswith("-")), "")


def _of_verbs() -> set[str]:
    """Return the options that any verb takes."""
    verbs = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices.values()
    return {name for verb in verbs for name in verb._option_string_actions}


def _run(args: argparse.Namespace, ready: Callable[[], object], *, debug: bool) -> int:
    """Run the verb; whatever leaves it becomes a message and an exit code."""
    try:
        try:
            module = _module(args.verb)
            for name in getattr(module, "LOADS", ()):
                importlib.import_module(name)
            ready()
            code = int(module.run(args))
            # What cannot be written is an error of the verb, and none of Python's when it ends.
            sys.stdout.flush()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            # What a stop has broken is no mistake; native code tells it by exceptions that are no `Exception`.
            stopped()
            raise
    except BaseException as error:  # noqa: BLE001 - the last line of defence: each kind has its message and code
        if debug and not isinstance(error, SystemExit):
            traceback.print_exc()
        meant = _meant(error)
        return _exit_code(meant, args.verb, kept=_kept(args, meant), as_json=getattr(args, "json", False))
    finally:
        forget()
    return code


def _meant(error: BaseException) -> BaseException:
    """Return the stop that an error was made of: Python 3.11 wraps what is raised while a class is made."""
    cause = error.__cause__ or error.__context__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, KeyboardInterrupt) else error


def _kept(args: argparse.Namespace, error: BaseException) -> str:
    """Return what a verb that was stopped leaves for the next one; empty where it is nothing."""
    full = isinstance(error, ModelyardError) and error.code == "disk-full"
    if not full and not isinstance(error, KeyboardInterrupt | OSError):
        return ""
    if args.verb in _RUNS:
        return "finished steps are kept and the next run goes on from them"
    kept = getattr(_module(args.verb), "kept", None)
    # What is wrong already is what the user has to hear of.
    with suppress(ModelyardError, OSError, ValueError):
        return kept(args) if kept else ""
    return ""


def _exit_code(error: BaseException, verb: str, *, kept: str = "", as_json: bool = False) -> int:
    """Tell what ended a verb, and return the exit code for it.

    Args:
        error: What left it.
        verb: Its name.
        kept: What is kept for the next one.
        as_json: Whether errors are to stand on stdout too.
    """
    after = f"; {kept}" if kept else ""
    match error:
        case ModelyardError():
            if error.code == "disk-full":
                error.problem = replace(error.problem, hint=error.problem.hint + after)
            tell(error, verb=verb, as_json=as_json)
            if not _flushed():
                _drop_output()
            return error.exit_code
        case KeyboardInterrupt():
            say(f"stopped by {str(error) or 'Ctrl-C'}{after}")
            # As a shell counts what a signal ended.
            return 128 + (signal.SIGTERM if str(error) == signal.SIGTERM.name else signal.SIGINT)
        case BrokenPipeError():
            # The reader (`| head`) has gone.
            _drop_output()
            return 0
        case OSError():
            from modelyard.store.disk import refused

            open_ = error.filename != STDOUT and _flushed()
            if not open_:
                error.filename = None
                _drop_output()
            said = refused(error, unnamed="the project" if open_ else "standard output")
            return _exit_code(said, verb, kept=kept, as_json=as_json)
        case Exception():
            hint = "this is a mistake in Modelyard; run again with --debug and report the trace"
            broken = ModelyardError("internal", f"{type(error).__name__}: {error}", hint=hint)
            tell(broken, verb=verb, as_json=as_json)
            return broken.exit_code
    raise error


def _flushed() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _drop_output() -> None:
    """Let what could not be written go: Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"modelyard.cli.{verb}")


if __name__ == "__main__":
    sys.exit(main())
