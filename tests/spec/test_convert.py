"""Fields: unknown, missing, of a wrong type; everything at once, in the order of the file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelyard._kit.errors import Problem

Judge = Callable[[str], list[Problem]]


def test_a_right_file_has_no_problem(problems: Judge, right: str, small: str) -> None:
    assert problems(right) == []
    assert problems(small) == []


def test_the_form_of_the_message(problems: Judge) -> None:
    (found,) = problems("project: p\ndata: {t: {from: data/a.csv}}\nmodel:\n  targt: y\n")
    assert found.message == '"targt" is not a field of "model"'
    assert found.where == "modelyard.yaml:4"
    assert found.hint == "did you mean `target`?"
    assert found.code == "spec-unknown-field"


# Lines added to a small right file -> code, line, words of message and hint.
ONE = [
    ("purpos: x", "spec-unknown-field", 4, '"purpos" is not a field of modelyard.yaml', "`purpose`"),
    ("trials: 3", "spec-unknown-field", 4, '"trials" is not a field', "`trials` belongs in `model.search`"),
    ("lineage: {}", "spec-unknown-field", 4, '"lineage"', "there is: "),
    ("purpose: [a]", "spec-wrong-type", 4, '"purpose" takes a text, not a list of 1', "for example"),
    ("purpose: 12", "spec-wrong-type", 4, 'not the number "12"', '`"12"`'),
    ("purpose: {a: 1}", "spec-wrong-type", 4, "not fields with values", "for example"),
    ("owners: credit", "spec-wrong-type", 4, '"owners" takes a list', "for example"),
    ("owners: [{contact: x}]", "spec-missing-field", 4, '"owners" needs "team"', "team: credit"),
    ("checks: {roc_auc: 1}", "spec-wrong-type", 4, '"checks" takes a list', "for example"),
    ("checks: [{evasion: {}}]", "spec-unknown-check", 4, '"evasion" is not a kind of check', ""),
    ("checks: [{roc_auk: {}}]", "spec-unknown-check", 4, '"roc_auk" is not a kind of check', "`roc_auc`"),
    ("checks: [{roc_auc: {at_lest: 1}}]", "spec-unknown-field", 4, '"checks.roc_auc"', "`at_least`"),
    ("checks: [{roc_auc: {at_least: high}}]", "spec-wrong-type", 4, "a number", ""),
    ("checks: [{roc_auc: {at_least: .nan}}]", "spec-bad-value", 4, "finite", ""),
    ("checks: [{roc_auc: {at_least: true}}]", "spec-wrong-type", 4, 'the truth value "true"', ""),
    ("checks: [{roc_auc: 0.9}]", "spec-wrong-type", 4, "fields with values", "roc_auc: {at_least: 0.9}"),
    ("checks: [latency]", "spec-missing-field", 4, '"checks.latency" needs "p99"', "p99: 5ms"),
    ("checks: [7]", "spec-wrong-type", 4, "one kind of check", "explain checks"),
    ("checks: [{mae: {}, rmse: {}}]", "spec-wrong-type", 4, 'not "mae" and "rmse"', "- "),
    ("checks: [{latency: {p99: 5}}]", "spec-bad-duration", 4, "a time with a unit", "5ms"),
    ("checks: [{latency: {p99: 5 ticks}}]", "spec-bad-duration", 4, "5 ticks", "5ms"),
    ("checks: [{latency: {p99: 0ms}}]", "spec-bad-duration", 4, "not more than 0", "5ms"),
    ("checks: [{repeatable: {runs: 1}}]", "spec-bad-value", 4, "less than 2", "runs: 3"),
    ("checks: [{repeatable: {runs: 2.5}}]", "spec-wrong-type", 4, "a whole number", "runs: 3"),
    ("checks: [{gap: {metric: mae, across: [], at_most: 1}}]", "spec-bad-value", 4, "is empty", "across"),
    ("checks: [{roc_auc: {at_least: 1, blocking: yes}}]", "spec-wrong-type", 4, "`true` or `false`", ""),
    ("deploy: {endpoint: a b}", "spec-bad-value", 4, '"a b" for "deploy.endpoint" is not a name', "income"),
    ("deploy: {endpoint: ../a}", "spec-bad-value", 4, '"../a"', "income"),
    ("deploy: {access: {roles: [analist]}}", "spec-bad-value", 4, '"analist"', "`analyst`"),
    ("deploy: {access: {per_minute: 0}}", "spec-bad-value", 4, "less than 1", "600"),
    ("monitor: {window: many}", "spec-wrong-type", 4, "a whole number", "500"),
    ("monitor: {drift: 0.2}", "spec-wrong-type", 4, '"monitor.drift" takes fields', "psi"),
    ("deploy: {access: {roles: [viewer]}}", "spec-bad-value", 4, '"viewer"', "analyst"),
    ("features: features.py", "spec-bad-value", 4, "FILE.py:FUNCTION", "features.py:build"),
]


@pytest.mark.parametrize(("line", "code", "number", "words", "hint"), ONE, ids=[c[0] for c in ONE])
def test_one_mistake(line: str, code: str, number: int, words: str, hint: str, problems: Judge, small: str) -> None:
    (found,) = problems(small + line + "\n")
    assert (found.code, found.where) == (code, f"modelyard.yaml:{number}")
    assert words in found.message
    assert hint in found.hint
    assert found.hint


MODEL = [
    ("split: {by: tme, column: a}", "spec-bad-value", '"tme" is not one of the values of "model.split.by"', "`time`"),
    ("split: {test: 20}", "spec-bad-percentage", "not less than 1", "`20%`"),
    ("split: {test: 0%}", "spec-bad-percentage", "not more than 0", "20%"),
    ("split: {test: some}", "spec-bad-percentage", "a share", "20%"),
    ("candidates: []", "spec-bad-value", "is empty", "logistic"),
    ("candidates: [lightgm]", "spec-bad-value", '"lightgm"', "`lightgbm`"),
    ("metric: roc_auk", "spec-bad-value", '"roc_auk"', "`roc_auc`"),
    ("metric: false_negative_rate", "spec-bad-value", '"false_negative_rate"', ""),
    ("search: {folds: 1}", "spec-bad-value", "less than 2", "5"),
    ("search: {minutes: -1}", "spec-bad-value", "not more than 0", "5"),
    ("seed: -1", "spec-bad-value", "less than 0", "7"),
    ("seed: 1" + "0" * 50, "spec-wrong-type", "a whole number", "7"),
    ("positive: [a]", "spec-wrong-type", "a list", "50K"),
    ("task: binry", "spec-bad-value", '"binry"', "`binary`"),
]


@pytest.mark.parametrize(("line", "code", "words", "hint"), MODEL, ids=[c[0][:40] for c in MODEL])
def test_one_mistake_in_the_model(line: str, code: str, words: str, hint: str, problems: Judge) -> None:
    (found,) = problems(f"project: p\ndata: {{t: {{from: data/a.csv}}}}\nmodel:\n  target: y\n  {line}\n")
    assert (found.code, found.where) == (code, "modelyard.yaml:5")
    assert words in found.message
    assert hint in found.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: {t: {from: data/a.csv}}\nmodel: {target: y}\n", 'the file needs "project"'),
        ("project: p\nmodel: {target: y}\n", 'the file needs "data"'),
        ("project: p\ndata: {t: {from: data/a.csv}}\n", 'the file needs "model"'),
        ("project: p\ndata: {t: {from: data/a.csv}}\nmodel:\n", '"model" needs "target"'),
        ("project: p\ndata: {}\nmodel: {target: y}\n", '"data" has no entry'),
        ("project: p\ndata: {t: }\nmodel: {target: y}\n", '"data.t" needs "from"'),
    ],
)
def test_what_is_missing(text: str, words: str, problems: Judge) -> None:
    (found,) = problems(text)
    assert found.code == "spec-missing-field"
    assert words in found.message
    assert "for example" in found.hint


def test_names_of_tables_are_names(problems: Judge) -> None:
    (found,) = problems("project: p\ndata: {my table: {from: data/a.csv}}\nmodel: {target: y}\n")
    assert found.code == "spec-bad-value"
    assert '"my table"' in found.message


def test_words_that_look_like_something_else(problems: Judge, small: str) -> None:
    """In YAML 1.1 `yes` is true and `12:30` is 750; people mean what they write."""
    from modelyard.spec import load

    assert problems(small.replace("target: y", "target: on, positive: yes")) == []
    model = load().model
    assert (model.target, model.positive) == ("on", "yes")
    for written in ("1", "1.0", "true", "no", "'1'"):
        assert problems(small.replace("target: y", f"target: y, positive: {written}")) == []
        assert load().model.positive == written.strip("'")


def test_one_text_is_a_list_of_one(problems: Judge, small: str) -> None:
    from modelyard.spec import load

    text = "data: {t: {from: [data/a.csv], key: [a, b], null_values: [NA, 9]}}"
    assert problems(small.replace("data: {t: {from: data/a.csv}}", text)) == []
    source = load().data["t"]
    assert source.key == ("a", "b")
    assert source.null_values == ("NA", "9")


def test_an_open_range(problems: Judge, small: str) -> None:
    from modelyard.spec import load

    contract = "data: {t: {from: data/a.csv, contract: {a: {range: [0, null]}}}}"
    assert problems(small.replace("data: {t: {from: data/a.csv}}", contract)) == []
    assert load().data["t"].contract["a"].range == (0.0, None)
    (found,) = problems(small.replace("data: {t: {from: data/a.csv}}", contract.replace("[0, null]", "[0]")))
    assert "not a list of 1" in found.message
    (found,) = problems(small.replace("data: {t: {from: data/a.csv}}", contract.replace("[0, null]", "[true, 2]")))
    assert 'takes a number or a text, not the truth value "true"' in found.message


def test_everything_at_once_in_the_order_of_the_file(problems: Judge) -> None:
    found = problems(
        "project: 2024\n"  # 1 wrong type
        "purpos: x\n"  # 2 unknown field
        "data:\n"
        "  t:\n"
        "    from: dat/*.csv\n"  # 5 missing file
        "    fresh_within: 2 days\n"  # 6 bad duration
        "features: feature.py:build\n"  # 7 missing file
        "model:\n"  # 8 missing target
        "  task: regression\n"
        "  split: {by: time, test: 20}\n"  # 10 bad share, and no column
        "  candidates: [logistic]\n"  # 11 contradiction
        "  search: {trials: many}\n"  # 12 wrong type
        "checks:\n"
        "  - roc_auc: {at_least: 0.9}\n"  # 14 contradiction
        "  - evasion: {max_drop: 1}\n"  # 15 unknown check
        "  - mae:\n"  # 16 no limit
        "project: q\n"  # 17 duplicate key
    )
    assert [(p.where.rpartition(":")[2], p.code) for p in found] == [
        ("1", "spec-wrong-type"),
        ("2", "spec-unknown-field"),
        ("5", "spec-missing-file"),
        ("6", "spec-bad-duration"),
        ("7", "spec-missing-file"),
        ("8", "spec-missing-field"),
        ("10", "spec-contradiction"),
        ("10", "spec-bad-percentage"),
        ("11", "spec-contradiction"),
        ("12", "spec-wrong-type"),
        ("14", "spec-contradiction"),
        ("15", "spec-unknown-check"),
        ("16", "spec-missing-field"),
        ("17", "spec-duplicate-key"),
    ]
    assert all(p.hint for p in found)
