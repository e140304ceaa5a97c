"""Printing hits and their texts: without control characters, and cut to fit the screen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gemma4vec.serving.search.documents import IndexedDocument
from gemma4vec.text.sanitize import sanitize

if TYPE_CHECKING:
    from rich.console import Console

    from gemma4vec.serving.search.index import Hit

LINE_CHARACTERS = 400


def to_one_line(text: str, width: int) -> str:
    """Put the text on one line of at most `width` characters, with `...` if cut."""
    words = " ".join(sanitize(text[: 20 * width + 200]).split())
    return words if len(words) <= width and len(text) <= 20 * width + 200 else words[: max(width - 3, 1)] + "..."


def excerpt(text: str, lines: int) -> tuple[str, int]:
    """Return the first `lines` lines, each at most 400 characters, and the number of lines left out."""
    all_lines = sanitize(text).strip("\n").expandtabs(4).split("\n")
    shown = [
        line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - 3] + "..." for line in all_lines[:lines]
    ]
    return "\n".join(shown), len(all_lines) - len(shown)


def is_python(document: IndexedDocument) -> bool:
    """Whether the document is Python source: from its path or an id such as `package/module.py:function`."""
    return (document.path or document.id.split(":")[0]).endswith(".py")


def lines_per_hit(height: int, hits: int) -> int:
    """Return the lines of text per hit, from 2 to 12, so that all hits fit a screen of `height` lines."""
    return max(2, min(12, (height - 3) // max(hits, 1) - 3))


def print_hits(console: "Console", hits: Sequence["Hit"], *, fit: bool = True) -> None:
    """Print rank, score, location and first lines of each hit; `fit` adapts the lines to the terminal's height."""
    from rich.text import Text

    if not hits:
        console.print("this index has no documents")
        return
    lines = lines_per_hit(console.height, len(hits)) if fit and console.is_terminal else 6
    for hit in hits:
        place = f":{hit.document.line}" if hit.document.line else ""
        name = to_one_line(hit.document.id, console.width - 14 - len(place))
        head = Text.assemble(
            (f"{hit.rank:>2}  ", "bold"), (f"{hit.score:.3f}  ", "cyan"), (name, "bold"), (place, "dim")
        )
        console.print(head, soft_wrap=True)
        left_out = print_text(console, hit.document, lines)
        if left_out > 0:
            console.print(Text(f"      ... {left_out} more line{'s' if left_out > 1 else ''}", style="dim"))
        console.print()


def print_text(console: "Console", document: IndexedDocument, lines: int | None = None) -> int:
    """Print the document's text or its first `lines` lines, Python highlighted; return the number of lines left out."""
    from rich.padding import Padding
    from rich.syntax import Syntax
    from rich.text import Text

    whole = document.text if not document.title else f"{document.title}\n{document.text}"
    shown, left_out = excerpt(whole, 100_000 if lines is None else lines)
    # Highlighting pads lines to the right edge, which is wrong in a pipe.
    if is_python(document) and console.is_terminal:
        # No line numbers: removed docstrings would make them wrong.
        syntax = Syntax(shown, "python", theme="ansi_dark", background_color="default", word_wrap=lines is None)
        console.print(Padding(syntax, (0, 0, 0, 6)))
    else:
        text = Text(shown, overflow="fold" if lines is None else "ellipsis", no_wrap=lines is not None)
        console.print(Padding(text, (0, 0, 0, 6), expand=False))
    return left_out
