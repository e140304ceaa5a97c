"""reStructuredText as HTML, from which its sections are read. What only Sphinx knows is read as text.

Nothing that a file names is read or run: `include`, `raw` and the like have no effect.
"""

import functools
import logging
import re
from typing import TYPE_CHECKING, Any

from gemma4vec.data.documents.html_sections import html_to_sections
from gemma4vec.data.documents.section import Section, one_line

if TYPE_CHECKING:
    from docutils.nodes import Node, system_message
    from docutils.parsers.rst.states import Inliner

SETTINGS = {
    "report_level": 5,  # nothing of it is shown or becomes part of the page
    "halt_level": 6,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "_disable_config": True,
    "doctitle_xform": False,
    "syntax_highlight": "none",
    "math_output": "LaTeX",
    "embed_stylesheet": False,
    "stylesheet_path": None,
    "smart_quotes": False,
    "initial_header_level": 1,
}
LABEL = "ref:"  # how links to labels begin, which may be in any file
# Sphinx's directives that hold text, objects that have a description, and those that hold none.
_HOLDING_TEXT = "deprecated versionadded versionchanged seealso centered hlist only tab tabs tab-set tab-item card"
_DESCRIBING = "function class method attribute data exception module option envvar describe object confval"
_HOLDING_NONE = (
    "toctree index highlight currentmodule automodule autoclass autofunction automethod autosummary literalinclude "
    "sectionauthor codeauthor tabularcolumns plot mermaid graphviz"
)
_ROLES = (
    "ref doc term func class meth mod attr exc data obj const any numref file option envvar command program guilabel "
    "menuselection kbd samp pep rfc abbr download keyword token dfn manpage mimetype makevar issue pr"
)
DOMAINS = ("", "py:", "c:", "cpp:", "js:", "rst:", "std:")
_TITLED = re.compile(r"(.+?)\s*<([^<>]+)>\s*\Z", re.S)


def rst_to_sections(text: str, path: str) -> list[Section]:
    """The sections of a reStructuredText file, with the lines of their headings.

    Raises:
        Exception: docutils cannot read it; it raises many kinds.
    """
    from docutils.core import publish_parts

    _register_sphinx()
    logging.getLogger("docutils").setLevel(logging.CRITICAL)
    parts = publish_parts(text, writer="html5", settings_overrides=SETTINGS)
    return _with_lines(html_to_sections(f"<main>{parts['html_body']}</main>", path), text)


def _with_lines(sections: list[Section], text: str) -> list[Section]:
    """Find each heading in the file, from the last one on: docutils' HTML has no lines."""
    lines = [one_line(line) for line in text.split("\n")]
    found, after = [], 0
    for section in sections:
        heading = section.headings[-1] if section.headings else None
        number = next((n for n in range(after, len(lines)) if lines[n] == heading), None) if heading else None
        if number is not None:
            after = number + 1
        found.append(section._replace(line=None if number is None else number + 1))
    return found


@functools.cache
def _register_sphinx() -> None:
    """Teach docutils, once, the directives and roles that only Sphinx has."""
    from docutils import nodes
    from docutils.parsers.rst import Directive, directives, roles

    class Holding(Directive):
        """Its content, as if the directive were not there; its argument first."""

        optional_arguments, final_argument_whitespace, has_content = 1000, True, True
        option_spec = None

        def run(self) -> list["Node"]:
            words = " ".join(self.arguments)
            holder = nodes.container()
            if words:
                holder += nodes.paragraph(words, words)
            self.state.nested_parse(self.content, self.content_offset, holder)
            return list(holder.children)

    class Nothing(Directive):
        """No text."""

        optional_arguments, final_argument_whitespace, has_content = 1000, True, True

        def run(self) -> list["Node"]:
            return []

    for name in _HOLDING_TEXT.split():
        directives.register_directive(name, Holding)
    for name in _HOLDING_NONE.split():
        directives.register_directive(name, Nothing)
    for domain in DOMAINS:
        for name in _DESCRIBING.split():
            if name != "class" or domain:  # docutils' own `class` sets the class of an element
                directives.register_directive(f"{domain}{name}", Holding)
        for name in _ROLES.split():
            roles.register_local_role(f"{domain}{name}", _role)


def _role(
    name: str,
    raw: str,
    text: str,
    line: int,
    inliner: "Inliner",
    options: dict[str, Any] | None = None,
    content: list[str] | None = None,
) -> tuple[list["Node"], list["system_message"]]:
    """`title <target>` or the target alone; a link for labels and documents."""
    from docutils import nodes

    words = text.replace("\x00", "")
    titled = _TITLED.match(words)
    shown, target = (titled[1], titled[2]) if titled else (words.lstrip("!~"), words)
    if words.startswith("~") and not titled:
        shown = shown.rpartition(".")[2]
    kind = name.rpartition(":")[2]
    if kind == "doc":
        return [nodes.reference(raw, shown, refuri=f"{target}.rst")], []
    if kind in ("ref", "numref"):
        return [nodes.reference(raw, shown, refuri=f"{LABEL}{nodes.make_id(target)}")], []
    return [nodes.inline(raw, shown)], []
