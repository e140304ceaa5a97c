"""Shared parts of all pages: the template environment, charts in two widths, sanitized texts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gemma4vec import __version__
from gemma4vec.files import atomic_write
from gemma4vec.report.content.p_value import format_p_value
from gemma4vec.text.sanitize import sanitize

WIDE, NARROW, FOREST = 744.0, 350.0, 340.0
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Chart:
    """A chart in two widths; the style sheet shows the one that fits."""

    wide: Markup
    narrow: Markup


def draw_chart(draw: Callable[[float], Markup | None]) -> Chart | None:
    """Draw a chart in both widths; None if there is nothing to draw."""
    wide, narrow = draw(WIDE), draw(NARROW)
    return Chart(wide, narrow) if wide is not None and narrow is not None else None


def render_template(name: str, values: Mapping[str, Any]) -> str:
    """Render the template `name` as HTML."""
    return make_environment().get_template(name).render(version=__version__, **values)


@once
def make_environment(*folders: Path) -> Environment:
    """Make the environment of templates in `folders`, then in `templates/`; they are compiled once."""
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {"p": format_p_value, "rule": _rule, "rule_words": _rule_words}
    environment.filters |= {"status": _status, "status_words": _status_words}
    environment.globals["span"] = span
    return environment


def write_page(path: Path, page: str) -> Path:
    """Write a page atomically and return its path.

    Raises:
        WorkError: the file cannot be written.
    """
    with atomic_write(path) as stream:
        stream.write(page)
    return path


def span(interval: Any, form: str) -> str:
    """Format the limits of an object with `low` and `high`. One query, or equal values, have no interval."""
    return f"{form % interval.low} to {form % interval.high}" if interval.high > interval.low else "no interval"


# What reads rules is imported when a page has one: the window starts without it.
def _rule(text: str) -> str:
    """A slice's rule as a person reads it."""
    from gemma4vec.inspection.predicates import readable_rule

    return readable_rule(str(text))


def _rule_words(text: str) -> str:
    """A slice's rule with its attributes in words."""
    from gemma4vec.inspection.predicates import rule_in_words

    return rule_in_words(str(text))


def _status(status: str) -> str:
    """The word for a slice's status."""
    from gemma4vec.inspection.slices import STATUS_WORDS

    return STATUS_WORDS.get(status, (status, ""))[0]


def _status_words(status: str) -> str:
    """What a slice's status means."""
    from gemma4vec.inspection.slices import STATUS_WORDS

    return STATUS_WORDS.get(status, (status, ""))[1]


def _finalize(value: Any) -> Any:
    """Remove control characters from every text on the page; our own markup passes unchanged."""
    return sanitize(value) if isinstance(value, str) and not isinstance(value, Markup) else value
