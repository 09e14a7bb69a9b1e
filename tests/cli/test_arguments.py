"""A command line that cannot be read is answered as every other mistake: code, value, near names, next step."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from modelyard._kit.errors import UserError
from modelyard.cli.arguments import read
from modelyard.cli.main import VERBS, main, parser


@pytest.mark.parametrize(
    ("line", "code", "says", "hint"),
    [
        ("stauts", "cli-unknown-verb", "there is no verb `stauts`", "did you mean `status`?"),
        ("frobnicate", "cli-unknown-verb", "`frobnicate`", "`modelyard --help` lists the verbs"),
        ("--vresion", "cli-unknown-option", "`modelyard` has no option `--vresion`", "did you mean `--version`?"),
        ("-f x.yaml run", "cli-unknown-option", "`-f`", "options stand behind the verb: `modelyard VERB -f`"),
        (
            "--file=x.yaml run",
            "cli-unknown-option",
            "`--file`",
            "options stand behind the verb: `modelyard VERB --file`",
        ),
        ("runs --limt 5", "cli-unknown-option", "`modelyard runs` has no option `--limt`", "did you mean `--limit`?"),
        ("runs --limt=5", "cli-unknown-option", "`--limt`", "did you mean `--limit`?"),
        ("plan -x", "cli-unknown-option", "`modelyard plan` has no option `-x`", "`modelyard plan --help`"),
        ("kill income --reson harm", "cli-unknown-option", "no option `--reson`", "did you mean `--reason`?"),
        ("kill income --re", "cli-arguments", "--re", "modelyard kill --help"),
        ("plan other.yaml", "cli-arguments", "`modelyard plan` takes no `other.yaml`", "`modelyard plan --help`"),
        ("promote", "cli-arguments", "`modelyard promote` needs MODEL", "for example `modelyard promote 3fa9c1d2b4e5`"),
        ("promote 3fa9 --alias", "cli-arguments", "--alias: expected one argument", "modelyard promote --help"),
        ("promote 3fa9 --alias champoin", "cli-value", "--alias is `champoin`", "did you mean `champion`?"),
        ("token ad", "cli-value", "ACTION is `ad`", "did you mean `add`?"),
        ("contract xyz", "cli-value", "ACTION is `xyz`", "it takes openapi, request, client"),
        ("runs --limit five", "cli-value", "--limit is `five`", "give 1 or more, in whole numbers"),
        ("loadtest --rate fast", "cli-value", "--rate is `fast`", "give a number"),
        ("loadtest --seconds 2", "cli-value", "--seconds is `2`", "give 5 or more"),
        ("loadtest --soak nan", "cli-value", "--soak is `nan`", "give 6 or more"),
        ("loadtest --most 1e9", "cli-value", "--most is `1e9`", "give 1 to 1,000,000"),
        ("run --workers 0", "cli-value", "--workers is `0`", "give 1 or more"),
        ("predict x.csv --workers 0", "cli-value", "--workers is `0`", "give 1 or more"),
        ("backfill clean --workers 0", "cli-value", "--workers is `0`", "give 1 or more"),
        ("up --port abc", "cli-value", "--port is `abc`", "give 0 to 65535, in whole numbers"),
        ("serve --port abc", "cli-value", "--port is `abc`", "give 0 to 65535, in whole numbers"),
        ("nginx", "cli-arguments", "`modelyard nginx` needs HOST:PORT", "--tls-key site.key -o /etc/nginx/conf.d/"),
        ("contract", "cli-arguments", "`modelyard contract` needs ACTION (openapi, request, ", "contract openapi -o"),
        ("token", "cli-arguments", "`modelyard token` needs ACTION (add, list, revoke)", "modelyard token add ana"),
        ("ui --port 70000", "cli-value", "--port is `70000`", "give 0 to 65535"),
        ("serve --grpc-port -1", "cli-value", "--grpc-port is `-1`", "give 0 to 65535"),
        ("alerts --limit -1", "cli-value", "--limit is `-1`", "give 0 or more"),
        ("lint --at-least 101", "cli-value", "--at-least is `101`", "give 0 to 100"),
        ("run --every banana", "cli-value", "--every is `banana`", "for example `30m`"),
        ("run --every 0s", "cli-value", "--every is `0s`", "above 0"),
        ("watch --every 0ms", "cli-value", "--every is `0ms`", "above 0"),
        ("runs --json=yes", "cli-arguments", "--json: ignored explicit argument", "modelyard runs --help"),
    ],
)
def test_a_line_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], line: str, code: str, says: str, hint: str
) -> None:
    assert main(line.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    first, second = told.err.splitlines()
    assert first.startswith(f"error[{code}]: ")
    assert says in first
    assert second.startswith("  hint: ")
    assert hint in second

    assert main([*line.split(), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    (problem,) = answer["problems"]
    assert problem.keys() == {"code", "where", "message", "hint"}
    assert problem["code"] == code
    assert hint in problem["hint"]


@pytest.mark.parametrize(
    "words",
    [
        ["token", "add", "ana", "--role", "viewer"],
        ["token", "add", "ana", "--json", "-f", "x.yaml"],
        ["contract", "check", "a.yaml", "b.yaml", "--against", "challenger"],
        ["contract", "diff", "champion", "challenger", "--json"],
        ["contract", "client", "champion", "-o", "src"],
        ["alerts", "send", "--json"],
        ["triggers", "fire", "files", "--json"],
        ["predict", "-", "--json"],
    ],
)
def test_options_may_stand_before_or_between_the_words(words: list[str]) -> None:
    """Python before 3.12 takes a word that may be left out for left out once an option follows."""
    verb, *rest = words
    split = next(i for i, word in enumerate(rest) if word.startswith("-") and word != "-")
    meant, options = rest[:split], rest[split:]
    wanted = read(parser([verb]), verb, [verb, *rest])
    for at in range(len(meant) + 1):
        assert read(parser([verb]), verb, [verb, *meant[:at], *options, *meant[at:]]) == wanted


def test_an_option_of_the_verbs_is_not_taken_for_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 2
    told = capsys.readouterr()
    assert "hint: options stand behind the verb: `modelyard VERB --json`\n" in told.err
    assert "options stand behind" in json.loads(told.out)["problems"][0]["hint"]


@pytest.mark.parametrize("json_", ["--json", "--jso", "--js", "--j"])
def test_json_is_meant_however_short_it_is_written(capsys: pytest.CaptureFixture[str], json_: str) -> None:
    for line in (["run", json_, "--bogus"], ["run", "--bogus", json_], [json_, "run"]):
        assert main(line) == 2
        assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize(
    "line", [["run", "--bogus", "--", "--json"], ["run", "--bogus", "--jx"], ["run", "--bogus", "--"]]
)
def test_what_is_not_json_gets_none(capsys: pytest.CaptureFixture[str], line: list[str]) -> None:
    assert main(line) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("line", [["--help"], ["--version"], ["runs", "--help"], []])
def test_who_asks_for_help_gets_it(capsys: pytest.CaptureFixture[str], line: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 0
    assert "modelyard" in capsys.readouterr().out


def test_no_verb_writes_a_usage_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb is read by the one parser: none has kept another way to refuse."""
    parser()  # each module is found and can be added
    for verb in VERBS:
        assert main([verb, "--no-such-option"]) == 2
        told = capsys.readouterr()
        assert told.err.startswith("error[cli-unknown-option]: "), verb
        assert "usage:" not in told.err + told.out


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (["rollback", "--to", ""], "--to"),
        (["rollback", "--to="], "--to"),
        (["kill", "", "--reason", "x"], "ENDPOINT"),
        (["revive", " "], "ENDPOINT"),
        (["promote", ""], "MODEL"),
        (["promote", "3fa9", "--endpoint", ""], "--endpoint"),
        (["cancel", ""], "RUN"),
        (["replay", "run-1", ""], "STEP"),
        (["triggers", "fire", ""], "NAME"),
        (["token", "revoke", ""], "NAME"),
        (["alerts", "ack", ""], "NAME"),
        (["contract", "check", "a.yaml", ""], "NAME"),
        (["run", "-f", ""], "--file"),
    ],
)
def test_a_name_that_is_empty_is_not_taken_for_one_that_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: list[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line) == 2
    first, hint = capsys.readouterr().err.splitlines()
    assert first == f"error[cli-value]: {name} is empty"
    assert hint == "  hint: give it a value, or leave it out"


def test_every_argument_of_every_verb_refuses_to_be_empty() -> None:
    """But for words of one's own, which name nothing."""
    verbs = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    for verb, its in verbs.items():
        for action in its._actions:
            if action.nargs == 0 or action.dest == "reason":
                continue
            with pytest.raises(UserError) as caught:
                its._get_values(action, [""])
            assert caught.value.code == "cli-value", (verb, action.dest)
