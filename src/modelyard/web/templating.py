"""The templates, and the words and small drawings they may use."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.text import number, plural, seconds_text, size_text
from modelyard.web import draw
from modelyard.web.assets import asset, vendored
from modelyard.web.pages.parts import measured
from modelyard.web.words import ago, coming, hours, money

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["breaks", "environment", "pretty", "ticks"]

# Only addresses within the site become links.
_ADDRESS = re.compile(r"/(?:[a-z][a-z0-9/_.-]*)?")
_RUN = re.compile(r"run-[a-z0-9]+")


def pretty(value: Any) -> str:
    """Return plain JSON in one readable line, e.g. `learning_rate 0.05, num_leaves 31`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {pretty(one)}" for key, one in value.items())
    if isinstance(value, float | int) and not isinstance(value, bool):
        return number(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def ticks(text: str, *, links: bool = True) -> Markup:
    """Return a message as HTML: what stands in backticks as code, and an address or a run as a link.

    Args:
        text: The message.
        links: Whether there are links; not where it names what is not there.

    >>> str(ticks("no run `run-1`, see `/runs` & <b>"))
    'no run <a href="/runs/run-1"><code>run-1</code></a>, see <a href="/runs"><code>/runs</code></a> &amp; &lt;b&gt;'
    """
    from markupsafe import Markup, escape

    out = []
    for i, piece in enumerate(text.split("`")):
        code = f"<code>{escape(piece)}</code>"
        if i % 2 == 0:
            out.append(str(escape(piece)))
        elif links and _ADDRESS.fullmatch(piece):
            out.append(f'<a href="{escape(piece)}">{code}</a>')
        elif links and _RUN.fullmatch(piece):
            out.append(f'<a href="/runs/{piece}">{code}</a>')
        else:
            out.append(code)
    return Markup("".join(out))  # noqa: S704 - every piece was escaped


def breaks(name: str) -> Markup:
    """Return a name that a narrow column may break after its dots and underscores.

    >>> str(breaks("gap.false_negative"))
    'gap.<wbr>false_<wbr>negative'
    """
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([._])(?=.)", r"\1<wbr>", str(escape(name))))  # noqa: S704 - the name was escaped


@cache
def environment() -> Environment:
    """Return the templates' environment: everything is escaped, and a name that is not there is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from modelyard.cards import charts

    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        ago=ago,
        breaks=breaks,
        coming=coming,
        hours=hours,
        money=money,
        measured=measured,
        number=number,
        plural=plural,
        pretty=pretty,
        seconds=seconds_text,
        short=short,
        size=size_text,
        ticks=ticks,
        when=as_text,
    )
    env.globals.update(asset=asset, draw=draw, charts=charts, htmx=f"vendor/{vendored()[0].file}")
    # Blocks that are rendered alone have no imports of their own, so the macros are a global.
    env.globals["ui"] = env.get_template("macros.html").module
    return env
