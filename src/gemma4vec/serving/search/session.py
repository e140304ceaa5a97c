"""Answering queries from an index: one query, lines of a file, or a prompt."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma4vec.errors import InputError
from gemma4vec.serving.search.display import print_hits, print_text, to_one_line
from gemma4vec.serving.search.index import Hit, SearchIndex
from gemma4vec.serving.search.store_index import StoreIndex
from gemma4vec.serving.store.filters import Filter
from gemma4vec.text.counted import counted
from gemma4vec.text.sanitize import sanitize
from gemma4vec.text.text_embedder import TextEmbedder

if TYPE_CHECKING:
    from rich.console import Console

HELP = """\
Type a query. An empty line or Ctrl-D ends the session.
  :k 10      show 10 hits
  :show 2    show the whole text of hit 2
  :help      show this help"""


@dataclass(frozen=True)
class Answer:
    """The hits of one query and the search time in seconds."""

    query: str
    hits: list[Hit]
    seconds: float

    def as_json(self) -> str:
        """Return one line of ASCII JSON, which every terminal and file can hold."""
        value: dict[str, Any] = {"query": self.query, "seconds": round(self.seconds, 4)}
        return json.dumps({**value, "hits": [hit.as_dict() for hit in self.hits]})


class SearchSession:
    """An embedder and an index of its vectors; with `where`, only documents that match.

    Raises:
        InputError: `k` is below 1.
    """

    def __init__(
        self, embedder: TextEmbedder, index: SearchIndex | StoreIndex, k: int, where: Filter | None = None
    ) -> None:
        if k < 1:
            raise InputError(f"-k is {k}; use at least 1")
        self.embedder, self.index, self.k, self.where = embedder, index, k, where
        self.last: list[Hit] = []

    def ask(self, query: str) -> Answer:
        """Return the `k` best hits for `query`; no hits for a blank query."""
        if not query.strip():
            return Answer(query, [], 0.0)
        started = time.perf_counter()
        # Terminal input that is not UTF-8 becomes lone surrogates, which no tokenizer accepts.
        vector_1D = self.embedder.encode_query([query.encode("utf-8", "replace").decode("utf-8")])
        self.last = self.index.search(vector_1D, self.k, self.where)[0]
        return Answer(query, self.last, time.perf_counter() - started)

    def answer_lines(self, lines: Iterable[str], show: Callable[[Answer], None]) -> None:
        """Answer queries line by line. A blank line is a query without hits, so answers correspond to lines."""
        for line in lines:
            show(self.ask(line.rstrip("\r\n")))

    def prompt(self, console: "Console", history: Path) -> None:
        """Read queries at a prompt until an empty line or Ctrl-D. Ctrl-C reaches the caller."""
        console.print(f"{self.index.count:,} documents. Type a query, or :help for the commands.")
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
                    self._run_command(line, console)
                else:
                    print_answer(console, self.ask(line))

    def _run_command(self, line: str, console: "Console") -> None:
        """Run a prompt command: a line that starts with a colon."""
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
                f"use :show N with N from 1 to {len(self.last)}" if self.last else "search for something first"
            )
        else:
            console.print(HELP)


def print_answer(console: "Console", answer: Answer) -> None:
    """Print the hits, their number and the search time."""
    if not answer.query.strip():
        return
    print_hits(console, answer.hits)
    shown = to_one_line(answer.query, max(console.width - 40, 20))
    hits = counted(len(answer.hits), "hit")
    console.print(f"{hits} in {answer.seconds:.2f} s for: {shown}", style="dim", markup=False, highlight=False)


@contextlib.contextmanager
def _line_history(path: Path) -> Any:
    """Turn on arrow keys and a stored history, if Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    # Search works without a readable or writable history.
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
    """Yield the lines of standard input; bytes that are not UTF-8 become U+FFFD."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace")
