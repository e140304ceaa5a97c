"""A person asks, the index answers: one query, a file of queries, or a prompt."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma4vec.errors import InputError
from gemma4vec.serving.search.display import one_line, print_hits, print_text
from gemma4vec.serving.search.index import Hit, SearchIndex
from gemma4vec.text.sanitize import sanitize
from gemma4vec.text.text_embedder import TextEmbedder

if TYPE_CHECKING:
    from rich.console import Console

HELP = """\
type what you look for; an empty line or Ctrl-D ends
  :k 10      show 10 hits
  :show 2    show all of hit 2
  :help      show this"""


@dataclass(frozen=True)
class Answer:
    """The hits of one query and the seconds they took."""

    query: str
    hits: list[Hit]
    seconds: float

    def as_json(self) -> str:
        """One line of ASCII JSON, safe for every terminal and file."""
        value: dict[str, Any] = {"query": self.query, "seconds": round(self.seconds, 4)}
        return json.dumps({**value, "hits": [hit.as_dict() for hit in self.hits]})


class SearchSession:
    """An embedder and the index that it made."""

    def __init__(self, embedder: TextEmbedder, index: SearchIndex, k: int) -> None:
        if k < 1:
            raise InputError(f"-k is {k}; ask for at least 1 hit")
        self.embedder, self.index, self.k = embedder, index, k
        self.last: list[Hit] = []

    def ask(self, query: str) -> Answer:
        """The `k` best hits for `query`; none for a blank one."""
        if not query.strip():
            return Answer(query, [], 0.0)
        started = time.perf_counter()
        # Lone surrogates come from bytes of a terminal that are not UTF-8; no tokenizer takes them.
        vector_1D = self.embedder.encode_query([query.encode("utf-8", "replace").decode("utf-8")])
        self.last = self.index.search(vector_1D, self.k)[0]
        return Answer(query, self.last, time.perf_counter() - started)

    def answer_lines(self, lines: Iterable[str], show: Callable[[Answer], None]) -> None:
        """Answer queries line by line; a blank line is a query without hits, so that answers line up with lines."""
        for line in lines:
            show(self.ask(line.rstrip("\r\n")))

    def prompt(self, console: "Console", history: Path) -> None:
        """Ask at a prompt until an empty line or Ctrl-D; Ctrl-C goes through to the caller."""
        console.print(f"{len(self.index.documents):,} documents. Type what you look for; :help says what else.")
        with _line_history(history):
            while True:
                try:
                    line = input("search> ").strip()
                except EOFError:
                    console.print()
                    return
                if not line:
                    return
                if line.startswith(":"):
                    self._command(line, console)
                else:
                    print_answer(console, self.ask(line))

    def _command(self, line: str, console: "Console") -> None:
        """One line that starts with a colon."""
        name, _, argument = line[1:].partition(" ")
        number = int(argument) if argument.strip().isdecimal() else 0
        if name == "k" and number:
            self.k = number
            console.print(f"hits to show: {self.k}")
        elif name == "show" and 1 <= number <= len(self.last):
            document = self.last[number - 1].document
            console.print(sanitize(document.id), markup=False, highlight=False, style="bold")
            print_text(console, document)
        elif name == "show":
            console.print(
                f"say :show N with N from 1 to {len(self.last)}" if self.last else "search for something first"
            )
        else:
            console.print(HELP)


def print_answer(console: "Console", answer: Answer) -> None:
    """Print the hits and the time taken."""
    if not answer.query.strip():
        return
    print_hits(console, answer.hits)
    shown = one_line(answer.query, max(console.width - 40, 20))
    hits = "1 hit" if len(answer.hits) == 1 else f"{len(answer.hits)} hits"
    console.print(f"{hits} in {answer.seconds:.2f} s for: {shown}", style="dim", markup=False, highlight=False)


@contextlib.contextmanager
def _line_history(path: Path) -> Any:
    """Arrow keys and a history that lasts, where Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    # A history that cannot be read or kept is no reason not to search.
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)


def stdin_lines() -> Iterable[str]:
    """The lines of standard input; bytes that are not UTF-8 become U+FFFD."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace")
