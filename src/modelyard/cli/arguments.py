"""Read the arguments of a verb; what cannot be read is an error with a code and a next step, as every other one."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from modelyard._kit.errors import UserError, near

__all__ = ["Parser", "port", "read", "real", "whole"]

Number = TypeVar("Number", int, float)

# What a type of an argument is in words.
_WORDS: dict[Any, str] = {int: "give a whole number", float: "give a number"}
# What a person says in words of their own names nothing, and may be left empty.
_FREE = ("reason",)
_REQUIRED = "the following arguments are required: "


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return what reads an argument that is a whole number within bounds.

    >>> whole(0, 100)("7")
    7
    """
    bounds = f"{least} to {most}" if most is not None else f"{least} or more"
    return _within(int, bounds, f"{bounds}, in whole numbers", least, most)


def real(least: float, most: float | None = None) -> Callable[[str], float]:
    """Return what reads an argument that is a number within bounds, whole or not.

    >>> real(0.5)("0.75")
    0.75
    """
    bounds = f"{least:,} to {most:,}" if most is not None else f"{least:,} or more"
    return _within(float, bounds, f"a number, {bounds}", least, most)


def _within(
    kind: Callable[[str], Number], bounds: str, wanted: str, least: float, most: float | None
) -> Callable[[str], Number]:
    def parsed(text: str) -> Number:
        try:
            number = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"give {wanted}") from None
        # Not `number < least`: of what is no number (`nan`) no comparison holds.
        if not least <= number <= (math.inf if most is None else most):
            raise argparse.ArgumentTypeError(f"give {bounds}")
        return number

    return parsed


# A port to listen on, 0 for a free one.
port = whole(0, 65535)


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are errors of ours; parsers of verbs below it are of the same kind."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(exit_on_error=False, **settings)
        self._mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and name the verb in whatever is wrong.

        Raises:
            UserError: An option is none (`cli-unknown-option`), a value cannot be used (`cli-value`), or something is
                missing or does not go together (`cli-arguments`).
        """
        try:
            found, rest = super().parse_known_args(args, namespace)
            if self._mixing or not any(map(_is_word, rest)) or not any(a.nargs in ("?", "*") for a in self._actions):
                return found, rest
            # Up to Python 3.12 a word that may be left out counts as left out once an option stands before it.
            self._mixing = True
            try:
                return self.parse_known_intermixed_args(args, namespace)
            finally:
                self._mixing = False
        except argparse.ArgumentError as error:
            raise self._explained(error, list(args or ())) from None

    def error(self, message: str) -> Any:
        """Raise instead of writing a usage and ending the process."""
        raise argparse.ArgumentError(None, message)

    def left_over(self, rest: Sequence[str]) -> UserError:
        """Return what is wrong with arguments that nobody took: an option that is none, or a word too many."""
        option = next((word.partition("=")[0] for word in rest if word.startswith("-")), "")
        if not option:
            return UserError("cli-arguments", f"`{self.prog}` takes no `{rest[0]}`", hint=self._help())
        close = near(option, self._option_string_actions, most=1)
        hint = f"did you mean `{close[0]}`?" if close else self._help()
        return UserError("cli-unknown-option", f"`{self.prog}` has no option `{option}`", hint=hint)

    def _explained(self, error: argparse.ArgumentError, given: list[str]) -> UserError:
        message = error.message
        if message.startswith("ambiguous option"):
            return UserError("cli-unknown-option", f"`{self.prog}`: {message}", hint="write the option in full")
        if message.startswith(_REQUIRED):
            # A name that is misspelled is why the right one is missing.
            odd = [word for word in given if word.startswith("--") and not self._begins_one(word.partition("=")[0])]
            if odd:
                return self.left_over(odd)
            needed = ", ".join(self._needed(message.removeprefix(_REQUIRED).split(", ")))
            return UserError("cli-arguments", f"`{self.prog}` needs {needed}", hint=self._help())
        if message.startswith("expected"):
            return UserError("cli-arguments", f"{error.argument_name}: {message}", hint=self._help())
        where = f"{error.argument_name}: " if error.argument_name else ""
        return UserError("cli-arguments", f"`{self.prog}`: {where}{message}", hint=self._help())

    def _needed(self, names: Sequence[str]) -> Iterator[str]:
        """Yield what is missing as the other errors spell it, each with what it may be."""
        actions = {argparse._get_action_name(action): action for action in self._actions}
        for name in names:
            action = actions.get(name)
            choices = f" ({', '.join(map(str, action.choices))})" if action is not None and action.choices else ""
            yield f"{_name(action) if action is not None else name}{choices}"

    def _begins_one(self, word: str) -> bool:
        return any(name.startswith(word) for name in self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(one) for one in action.choices if one]
        close = near(str(value), choices)
        hint = f"did you mean {' or '.join(f'`{c}`' for c in close)}?" if close else f"it takes {', '.join(choices)}"
        raise UserError("cli-value", f"{_name(action)} is `{value}`", hint=hint)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # A variable of a shell that is not set: taken for "not given" it would change something else than was meant.
        if action.nargs != argparse.PARSER and action.dest not in _FREE and not all(map(str.strip, arg_strings)):
            raise UserError("cli-value", f"{_name(action)} is empty", hint="give it a value, or leave it out")
        return super()._get_values(action, arg_strings)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            said = error.message if isinstance(error.__context__, argparse.ArgumentTypeError) else ""
            hint = said or _WORDS.get(action.type) or self._help()
            raise UserError("cli-value", f"{_name(action)} is `{arg_string}`", hint=hint) from None

    def _help(self) -> str:
        # An example may go on over several lines.
        lines = re.sub(r" \\\n\s*", " ", self.epilog or "").splitlines()
        example = next((line.strip() for line in lines if line.startswith("  modelyard")), "")
        like = f"for example `{example}`; " if example else ""
        return f"{like}`{self.prog} --help` says what it takes"


def read(top: Parser, verb: str, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a whole command line.

    Args:
        top: The parser of the command.
        verb: Name of the verb, for what is left over.
        arguments: The command line.

    Raises:
        UserError: It cannot be read, see `Parser.parse_known_args`.
    """
    args, rest = top.parse_known_args(list(arguments))
    if rest:
        raise _of_verb(top, verb).left_over(rest)
    return args  # type: ignore[no-any-return]


def _of_verb(top: Parser, verb: str) -> Parser:
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction) and verb in action.choices:
            found: Parser = action.choices[verb]
            return found
    return top


def _is_word(given: str) -> bool:
    return given == "-" or not given.startswith("-")


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest).upper()
