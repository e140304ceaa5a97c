"""What all pages share: the template environment, pictures in two widths, and how texts become harmless."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gemma4vec import __version__
from gemma4vec.files import atomic_write
from gemma4vec.report.content.headline import p_text
from gemma4vec.text.sanitize import sanitize

WIDE, NARROW, FOREST = 744.0, 350.0, 340.0


@dataclass(frozen=True)
class Chart:
    """A picture drawn twice; the style sheet shows the one that fits."""

    wide: Markup
    narrow: Markup


def drawn(draw: Callable[[float], Markup | None]) -> Chart | None:
    """A picture in both widths; None where there is nothing to draw."""
    wide, narrow = draw(WIDE), draw(NARROW)
    return Chart(wide, narrow) if wide is not None and narrow is not None else None


def render_template(name: str, values: Mapping[str, Any]) -> str:
    """A page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["p"] = p_text
    environment.globals["span"] = span
    return environment.get_template(name).render(version=__version__, **values)


def write_page(path: Path, page: str) -> Path:
    """Write a page atomically and give its path.

    Raises:
        WorkError: the file cannot be written.
    """
    with atomic_write(path) as stream:
        stream.write(page)
    return path


def span(interval: Any, form: str) -> str:
    """The limits of anything with `low` and `high`; of one without width (one query, nothing varies) there are none."""
    return f"{form % interval.low} to {form % interval.high}" if interval.high > interval.low else "no interval"


def _finalize(value: Any) -> Any:
    """Every text that reaches the page loses its control characters; markup of our own passes."""
    return sanitize(value) if isinstance(value, str) and not isinstance(value, Markup) else value
