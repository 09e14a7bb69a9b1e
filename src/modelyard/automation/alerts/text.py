"""What alerts say: a title of one line, a text, HTML for mail, a short form for chats, and many in one message.

No secret and no line break gets into a title, whatever an error says; HTML is escaped; a chat pings nobody.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from modelyard._kit.clock import as_text
from modelyard._kit.digest import digest_of
from modelyard._kit.text import plural
from modelyard.automation.alerts.happening import Happening
from modelyard.records import Alert, Urgency
from modelyard.security.redact import redact

__all__ = ["Message", "clean", "message", "one_line", "page", "plain_text", "title"]

_TITLE = 180
_FACT = 2000
_CHAT = 900
# What a chat shows of the facts; the rest is on the page.
_SHORT = ("likely cause", "next step", "saved", "run")
_ORDER: tuple[Urgency, ...] = ("low", "normal", "high")
# Words by which chats call everybody, and the mark-up by which Slack calls anybody.
_PINGS = re.compile(r"@(?=everyone|here|channel|all\b)|<(?=[!@#])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Message:
    """What is handed to one target at once: one alert, or a digest of several.

    Attributes:
        id: Equal when the same is sent again.
        title: One line.
        text: Plain text.
        html: The same as HTML.
        short: For chats.
        urgency: The highest in it.
        alerts: What it tells of.
        links: Address of the page of each alert; empty where it is not known.
    """

    id: str
    title: str
    text: str
    html: str
    short: str
    urgency: Urgency
    alerts: tuple[Alert, ...]
    links: tuple[str, ...]


def one_line(text: str, most: int = _TITLE) -> str:
    r"""Return a text on one line without anything that cannot be seen, cut at `most` characters.

    >>> one_line("failed\r\nBcc: all@example.org")
    'failed Bcc: all@example.org'
    """
    seen = "".join(sign if sign.isprintable() else " " for sign in text)
    line = " ".join(seen.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def clean(text: str) -> str:
    """Return a text without secrets and control characters; its lines stay."""
    lines = ("".join(sign if sign.isprintable() else " " for sign in line) for line in redact(text).splitlines())
    whole = "\n".join(line.rstrip() for line in lines).strip()
    return whole if len(whole) <= _FACT else f"{whole[: _FACT - 1]}…"


def title(project: str, what: str) -> str:
    """Return the title of an alert."""
    return one_line(f"{project}: {redact(what)}")


def plain_text(project: str, happening: Happening, facts: Sequence[tuple[str, str]]) -> str:
    """Return the text of an alert: what happened whole, and what is known of it."""
    whole = clean(f"{project}: {happening.what}")
    return "\n".join([whole, "", f"at: {as_text(happening.at)}", *(f"{label}: {text}" for label, text in facts)])


def page(pages: str, alert: Alert) -> str:
    """Return the address of the page of an alert's run; an empty text where the pages' address is not known."""
    if not pages.startswith(("http://", "https://")) or not alert.run:
        return ""
    return f"{pages.rstrip('/')}/runs/{quote(alert.run, safe='')}"


def message(alerts: Sequence[Alert], *, project: str, pages: str = "") -> Message:
    """Make a message of one alert, or a digest of several.

    Args:
        alerts: What it tells of, in order.
        project: Name of the project.
        pages: Address of the pages, if they are served where readers reach them.
    """
    links = tuple(page(pages, alert) for alert in alerts)
    urgency = max((alert.urgency for alert in alerts), key=_ORDER.index)
    if len(alerts) == 1:
        (alert,), (link,) = alerts, links
        return Message(
            id=alert.id,
            title=alert.title,
            text=_whole(alert, link),
            html=_html(alert.title, [_section(alert, link)]),
            short=_short(alert, link),
            urgency=urgency,
            alerts=(alert,),
            links=links,
        )
    counts = Counter(alert.on for alert in alerts)
    head = f"{project}: {plural(len(alerts), 'message')} ({', '.join(f'{n} {on}' for on, n in counts.items())})"
    pairs = list(zip(alerts, links, strict=True))
    lines = "\n".join(f"{as_text(alert.at)}  {alert.title}" for alert in alerts)
    return Message(
        id=f"digest-{digest_of([alert.id for alert in alerts])[:16]}",
        title=one_line(head),
        text="\n\n".join([f"{head}\n\n{lines}", *(_whole(alert, link) for alert, link in pairs)]),
        html=_html(head, [_section(alert, link, titled=True) for alert, link in pairs]),
        short=_harmless(f"{head}\n{lines}"),
        urgency=urgency,
        alerts=tuple(alerts),
        links=links,
    )


def _whole(alert: Alert, link: str) -> str:
    known = [alert.text]
    if alert.trace:
        known.append(f"trace: {alert.trace}")
    known.append(f"alert: {alert.id}")
    if link:
        known.append(f"page: {link}")
    return "\n".join(known)


def _short(alert: Alert, link: str) -> str:
    lines = [alert.title, *(f"{label}: {one_line(text)}" for label, text in alert.facts if label in _SHORT)]
    return _harmless("\n".join([*lines, *([link] if link else [])]))


def _harmless(text: str) -> str:
    """Cut a text to what every chat takes, and call nobody."""
    # A zero-width space stands behind the sign, so that it reads the same and is no mark-up.
    quiet = _PINGS.sub(lambda found: f"{found[0]}\u200b", text)
    return quiet if len(quiet) <= _CHAT else f"{quiet[: _CHAT - 1]}…"


def _html(head: str, sections: Sequence[str]) -> str:
    style = "font-family:sans-serif;font-size:14px;color:#222"
    return (
        f'<html><body style="{style}"><h2 style="font-size:17px">{escape(head)}</h2>{"".join(sections)}</body></html>'
    )


def _section(alert: Alert, link: str, *, titled: bool = False) -> str:
    facts = [("at", as_text(alert.at)), *alert.facts, ("trace", alert.trace), ("alert", alert.id)]
    cell = "padding:2px 12px 2px 0;vertical-align:top"
    rows = "".join(
        f'<tr><td style="{cell};color:#666">{escape(label)}</td><td style="{cell}">{_lines(text)}</td></tr>'
        for label, text in facts
        if text
    )
    head = f'<h3 style="font-size:15px">{escape(alert.title)}</h3>' if titled else _opening(alert)
    foot = f'<p><a href="{escape(link)}">the run\'s page</a></p>' if link else ""
    return f"{head}<table>{rows}</table>{foot}"


def _opening(alert: Alert) -> str:
    """Return the first lines of the text where they say more than the title."""
    whole = alert.text.partition("\n\n")[0]
    return f"<p>{_lines(whole)}</p>" if whole != alert.title else ""


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")
