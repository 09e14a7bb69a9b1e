"""What cannot hold together in `alerts` and `mail`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

from modelyard._kit.errors import near
from modelyard._kit.times import Wrong as WrongTime
from modelyard._kit.times import windows, zone
from modelyard.spec.declaration import Declaration
from modelyard.spec.report import Finding
from modelyard.spec.sections.addresses import names, people, problem_of, scheme_of, source_of
from modelyard.spec.sections.alerts import Told

__all__ = ["alert_rules"]

# What is ever of high urgency; see `automation.alerts`.
_URGENT = ("failure", "stuck", "guards")
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def alert_rules(d: Declaration) -> Iterator[Finding]:
    """Yield what is wrong with the targets of alerts and with the mail server."""
    called = names(d.alerts)
    for index, told in enumerate(d.alerts):
        at = f"alerts.{index}"
        if told.name is not None and told.name in called[:index]:
            first = called.index(told.name)
            message = f'"{told.name}" is the name of two targets'
            yield Finding(f"{at}.name", message, "give each a name of its own", (f"alerts.{first}.name",))
        if told in d.alerts[:index]:
            first = d.alerts.index(told)
            message = f'the target "{called[index]}" stands twice, word for word'
            yield Finding(f"{at}.to", message, "keep one of them", (f"{at}.*", f"alerts.{first}.*"))
            continue
        yield from _address(f"{at}.to", told.to)
        yield from _web_only(at, told)
        yield from _asked(at, told)
        yield from _quiet(at, told)
        yield from _escalate(at, told, called[index], called)
    yield from _mail(d)


def _address(at: str, to: str) -> Iterator[Finding]:
    wrong = problem_of(to)
    if wrong is not None:
        yield Finding(at, wrong.message, wrong.hint, code=wrong.code)


def _web_only(at: str, told: Told) -> Iterator[Finding]:
    web = scheme_of(told.to) in ("http", "https", "env", "file")
    if told.secret is not None:
        if not web:
            message = '"secret" signs web requests, and this target takes none'
            yield Finding(f"{at}.secret", message, "take it out", (f"{at}.to",))
        elif source_of(told.secret) is None:
            # What stands there may be the secret itself, so it is not shown.
            message = '"secret" says where the secret is, and is not the secret'
            hint = "put it into a variable and write `env:NAME`, or into a file and write `file:PATH`"
            yield Finding(f"{at}.secret", message, hint, code="spec-secret")
        elif (wrong := problem_of(told.secret)) is not None:
            yield Finding(f"{at}.secret", wrong.message, wrong.hint, code=wrong.code)
    if told.private and not web:
        message = '"private" is for web addresses, and this is none'
        yield Finding(f"{at}.private", message, "take it out", (f"{at}.to",))


def _asked(at: str, told: Told) -> Iterator[Finding]:
    if told.stages and "stage" not in told.on:
        message = '"stages" says which steps `stage` is about, and the target is not told of `stage`'
        yield Finding(f"{at}.stages", message, f"write `on: [{', '.join(('stage', *told.on))}]`", (f"{at}.on",))


def _quiet(at: str, told: Told) -> Iterator[Finding]:
    if told.zone is not None and not told.quiet:
        yield Finding(f"{at}.zone", '"zone" is that of "quiet", and there is none', "take it out", (f"{at}.quiet",))
    try:
        here = zone(told.zone or "UTC")
    except WrongTime as wrong:
        yield Finding(f"{at}.zone", wrong.message, wrong.hint, code="spec-bad-value")
        return
    if not told.quiet:
        return
    try:
        found = windows(told.quiet, here)
    except WrongTime as wrong:
        yield Finding(f"{at}.quiet", wrong.message, wrong.hint, code="spec-bad-value")
        return
    if found.always:
        message = "the quiet windows hold the whole week, so nothing that is not urgent would ever be sent"
        yield Finding(f"{at}.quiet", message, "leave some time free, or write `at_least: high`")


def _escalate(at: str, told: Told, name: str, called: list[str]) -> Iterator[Finding]:
    further = told.escalate
    if further is None:
        return
    if not any(kind in told.on for kind in _URGENT):
        message = '"escalate" is for alerts of high urgency, and the target is told of none'
        yield Finding(f"{at}.escalate", message, "add `failure` to `on`, or take it out", (f"{at}.on",))
    if further.to == name:
        message = "nobody further would be told: the alert would go to the same target again"
        yield Finding(f"{at}.escalate.to", message, "name another target or address", (f"{at}.name",))
    elif further.to not in called and not scheme_of(further.to) and (close := near(further.to, called)):
        message = f'there is no target "{further.to}"'
        yield Finding(f"{at}.escalate.to", message, f"did you mean `{close[0]}`?", ("alerts.*",))
    elif further.to not in called:
        yield from _address(f"{at}.escalate.to", further.to)


def _mail(d: Declaration) -> Iterator[Finding]:
    mail = d.mail
    if mail is None:
        return
    by_mail = [told.to for told in d.alerts] + [told.escalate.to for told in d.alerts if told.escalate]
    if not any(scheme_of(to) == "mailto" or source_of(to) for to in by_mail):
        message = '"mail" is the server for `mailto:`, and no target of "alerts" has such an address'
        yield Finding("mail", message, "add `alerts: [mailto:NAME@HOST]`, or take it out", ("alerts.*",))
    if not _is_host(mail.host):
        message = f'"{mail.host}" is no name of a server'
        yield Finding("mail.host", message, "for example `host: smtp.example.org`", code="spec-bad-value")
    elif mail.user is not None and mail.encryption == "none" and not mail.local:
        message = "without TLS the password would cross the network for all to read"
        yield Finding("mail.tls", message, "take `tls: none` out", ("mail.host", "mail.user"))
    if mail.from_ is not None and (len(people(f"mailto:{mail.from_}")) > 1 or problem_of(f"mailto:{mail.from_}")):
        message = f'"{mail.from_}" is no mail address'
        yield Finding("mail.from", message, "for example `from: ml@example.org`", code="spec-bad-value")


def _is_host(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return True
