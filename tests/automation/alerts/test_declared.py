"""What the file may say of alerts, and what it is told when it may not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelyard._kit.errors import Problem, SpecError
from modelyard.automation.alerts.routes import targets
from modelyard.spec import Spec, explain
from modelyard.spec.sections.addresses import made_name, names, problem_of
from modelyard.spec.sections.alerts import DEFAULT_ON, KINDS, Mail, Told

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

Make = Callable[..., Spec]


def test_the_short_form_is_a_target_with_defaults(project: Make) -> None:
    spec = project("alerts: ['mailto:ml@example.org', 'https://hooks.example.org/ml', 'env:ML_HOOK']")
    assert [told.to for told in spec.alerts] == ["mailto:ml@example.org", "https://hooks.example.org/ml", "env:ML_HOOK"]
    assert spec.alerts[0] == Told(to="mailto:ml@example.org")
    assert spec.alerts[0].on == DEFAULT_ON
    assert list(targets(spec)) == ["mail-example.org", "hook-hooks.example.org", "ml-hook"]


def test_short_and_long_forms_stand_beside_each_other(project: Make) -> None:
    spec = project(
        """
        alerts:
          - mailto:ml@example.org
          - to: https://hooks.example.org/ml
            name: ml-team
            on: failure
            at_least: normal
            quiet: ["Mon-Fri 22:00-07:00", "Sat-Sun"]
            zone: Europe/Berlin
            digest: 1h
            repeat: 2d
            escalate: {after: 30m, to: mail-example.org}
        """
    )
    told = spec.alerts[1]
    assert (told.name, told.on, told.digest, told.repeat) == ("ml-team", ("failure",), 3600.0, 172_800.0)
    target = targets(spec)["ml-team"]
    assert (target.further, target.after) == ("mail-example.org", 1800.0)
    assert target.quiet is not None
    assert target.quiet.contains(1_790_000_000.0 // 86_400 * 86_400 + 23 * 3600)


def test_names_are_made_without_secrets_and_once() -> None:
    told = [
        Told(to=to) for to in ("mailto:a@b.org", "mailto:c@b.org", "slack://T0KEN/B/C", "https://u:pw@x.org/k?sig=s")
    ]
    assert names(told) == ["mail-b.org", "mail-b.org-2", "slack", "hook-x.org"]
    # A name of one's own is nobody else's.
    assert names([Told(to="mailto:a@b.org"), Told(to="env:X", name="mail-b.org")]) == ["mail-b.org-2", "mail-b.org"]
    assert made_name("file:/run/secrets/ML_HOOK") == "ml-hook"
    assert made_name("???") == "target"


def problems(project: Make, alerts: str, more: str = "") -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        project(alerts, more=more)
    return list(caught.value.problems)


BAD = [
    ("alerts: []", "spec-bad-value", '"alerts" is empty', "for example"),
    ("alerts: ['slac://a/b/c']", "spec-bad-address", "`slac:` is no kind of address", "did you mean `slack:`?"),
    ("alerts: ['mailt:a@b.org']", "spec-bad-address", "`mailt:` is no kind of address", "`mailto:`"),
    (
        "alerts: [a@example.org]",
        "spec-bad-address",
        '"a@example.org" has no scheme',
        "did you mean `mailto:a@example.org`?",
    ),
    ("alerts: [ML_HOOK]", "spec-bad-address", '"ML_HOOK" has no scheme', "did you mean `env:ML_HOOK`?"),
    ("alerts: ['mailto:a@b@c']", "spec-bad-address", '"a@b@c" is no mail address', ""),
    ("alerts: ['mailto:a@b.org?cc=c@d.org']", "spec-bad-address", "takes addresses only", "`?`"),
    ("alerts: ['https:///x']", "spec-bad-address", "cannot be read", ""),
    ("alerts: ['env:ML HOOK']", "spec-bad-address", "name of a variable", "env:ML_HOOK"),
    ("alerts: ['matrix://x']", "spec-bad-address", "known to Apprise", ""),
    ("alerts: ['https://me:hunter2@x.org/']", "spec-secret", "a user or a password", "env:NAME"),
    ("alerts: ['https://x.org/?sig=abcdef']", "spec-secret", "holds a key", "env:NAME"),
    ("alerts: ['https://hooks.slack.com/services/T/B/x']", "spec-secret", "the key of a chat", "env:NAME"),
    ("alerts: ['slack://T0/B0/x']", "spec-secret", "a key", "env:NAME"),
    ("alerts: ['mailto://me:hunter2@x.org']", "spec-secret", "a password", "env:NAME"),
    ("alerts: ['pagerduty://key@routing']", "spec-secret", "a key", "env:NAME"),
    ("alerts: [{to: 'mailto:a@b.org', on: [stat]}]", "spec-bad-value", '"stat" is not one of', "`start`"),
    ("alerts: [{to: 'mailto:a@b.org', on: []}]", "spec-bad-value", '"alerts.on" is empty', ""),
    ("alerts: [{on: [start]}]", "spec-missing-field", 'needs "to"', ""),
    ("alerts: [{to: 'mailto:a@b.org', qiet: x}]", "spec-unknown-field", '"qiet"', "`quiet`"),
    ("alerts: [{to: 'mailto:a@b.org', quiet: '22:00-7'}]", "spec-bad-value", "neither a day nor a time", "22:00-07:00"),
    ("alerts: [{to: 'mailto:a@b.org', quiet: 'Mon-Sun'}]", "spec-contradiction", "the whole week", "at_least: high"),
    (
        "alerts: [{to: 'mailto:a@b.org', quiet: '22:00-07:00', zone: Europe/Berln}]",
        "spec-bad-value",
        '"Europe/Berln"',
        "Europe/Berlin",
    ),
    ("alerts: [{to: 'mailto:a@b.org', zone: UTC}]", "spec-contradiction", '"zone" is that of "quiet"', "take it out"),
    ("alerts: [{to: 'mailto:a@b.org', stages: [fit]}]", "spec-contradiction", '"stages"', "stage, failure"),
    ("alerts: [{to: 'mailto:a@b.org', secret: 'env:X'}]", "spec-contradiction", '"secret" signs web requests', ""),
    ("alerts: [{to: 'https://x.org', secret: hunter2}]", "spec-secret", "is not the secret", "env:NAME"),
    ("alerts: [{to: 'mailto:a@b.org', private: true}]", "spec-contradiction", '"private" is for web', ""),
    ("alerts: [{to: 'mailto:a@b.org', digest: 0s}]", "spec-bad-duration", "not more than 0", ""),
    ("alerts: ['mailto:a@b.org', 'mailto:a@b.org']", "spec-contradiction", "stands twice", "keep one"),
    (
        "alerts: [{to: 'mailto:a@b.org', name: x}, {to: 'mailto:c@b.org', name: x}]",
        "spec-contradiction",
        "two targets",
        "",
    ),
    (
        "alerts: [{to: 'mailto:a@b.org', name: team, escalate: {after: 1h, to: team}}]",
        "spec-contradiction",
        "the same target again",
        "",
    ),
    (
        "alerts: [{to: 'mailto:a@b.org', escalate: {after: 1h, to: qqqq}}, {to: 'env:Y', name: boss}]",
        "spec-bad-address",
        "has no scheme",
        "",
    ),
    (
        "alerts: [{to: 'mailto:a@b.org', escalate: {after: 1h, to: bos}}, {to: 'env:Y', name: boss}]",
        "spec-contradiction",
        'no target "bos"',
        "`boss`",
    ),
    (
        "alerts: [{to: 'mailto:a@b.org', on: start, escalate: {after: 1h, to: 'env:X'}}]",
        "spec-contradiction",
        "told of none",
        "",
    ),
]


@pytest.mark.parametrize(("alerts", "code", "says", "hint"), BAD, ids=[b[0][:60] for b in BAD])
def test_a_mistake_is_told_with_place_and_next_step(
    project: Make, alerts: str, code: str, says: str, hint: str
) -> None:
    (problem,) = problems(project, alerts)
    assert problem.code == code
    assert says in problem.message
    assert hint in problem.hint
    assert problem.hint
    assert "modelyard.yaml:6" in problem.where
    for secret in ("hunter2", "T0", "abcdef"):
        assert secret not in str(problem)


@pytest.mark.parametrize(
    ("mail", "code", "says"),
    [
        ("{host: 'smtp://x'}", "spec-bad-value", "no name of a server"),
        ("{host: smtp.x.org, user: a, tls: none}", "spec-contradiction", "for all to read"),
        ("{host: 10.0.0.1, user: a, tls: none}", "spec-contradiction", "for all to read"),
        ("{from: 'me, you'}", "spec-bad-value", "no mail address"),
        ("{port: 0}", "spec-bad-value", "less than 1"),
        ("{password: x}", "spec-unknown-field", '"password"'),
    ],
)
def test_a_mistake_in_the_mail_server_is_told(project: Make, mail: str, code: str, says: str) -> None:
    (problem,) = problems(project, "alerts: ['mailto:a@b.org']", more=f"mail: {mail}")
    assert problem.code == code
    assert says in problem.message


def test_a_mail_server_that_nobody_uses_is_told(project: Make) -> None:
    (problem,) = problems(project, "alerts: ['https://x.org/']", more="mail: {host: smtp.x.org}")
    assert "no target" in problem.message
    project("alerts: ['env:X']", more="mail: {host: smtp.x.org}")


def test_the_mail_server_has_the_usual_port_and_encryption() -> None:
    def how(**settings: object) -> tuple[int, str]:
        mail = Mail(**settings)  # type: ignore[arg-type]
        return mail.at_port, mail.encryption

    assert how() == (25, "none")
    assert how(host="smtp.example.org") == (587, "starttls")
    assert how(host="smtp.example.org", port=465) == (465, "direct")
    assert how(host="smtp.example.org", tls="direct") == (465, "direct")
    assert how(host="::1", port=1025) == (1025, "none")


def test_what_a_variable_holds_may_be_secret_and_must_be_an_address() -> None:
    assert problem_of("https://x.org/?sig=abc", given=False) is None
    assert problem_of("mailto://me:pw@example.org", given=False) is None
    for odd in ("env:OTHER", "", "line\nbreak", "slac://x", "https://me:pw@x.org/"):
        assert problem_of(odd, given=False) is not None


def test_every_field_is_explained() -> None:
    assert explain("alerts.to").required
    assert explain("alerts.repeat").default == "6h"
    assert all(f"`{kind}`" in explain("alerts.on").about for kind in KINDS)
    assert explain("mail.from").example
