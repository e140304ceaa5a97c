"""Functions of one Python file, each with its docstring taken out of its source and kept beside it.

The construction of CodeSearchNet (Husain et al., 2019): functions and methods that stand in a module or class (a nested
function is part of the one around it), no dunder methods, no tests, at least three lines of body.
"""

import ast
import io
import re
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gemma4vec.data.pycode.docstrings import first_sentence, sentence_flaw

MIN_BODY_LINES, MAX_CHARACTERS = 3, 20_000
NEWLINE = re.compile(r"\r\n|\r|\n")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Function(NamedTuple):
    """A function: where it stands, its source without docstring (dedented), and its docstring's first sentence.

    `id` is `path:qualified.name`, with `#2`, `#3` for further definitions of that name; `path` is relative to the
    root that was walked, with slashes; `line` is that of `def` or the first decorator; `query` is None where the
    docstring is missing or no sentence.
    """

    id: str
    package: str
    path: str
    name: str
    line: int
    source: str
    query: str | None


class Extraction(NamedTuple):
    """Functions, and how many files or functions met each reason for leaving something out."""

    functions: list[Function]
    reasons: Counter[str]


def extract(source: bytes, path: str, package: str) -> Extraction:
    """All functions of a file that pass the size filters. A file that cannot be decoded or parsed is counted."""
    reasons: Counter[str] = Counter(files=1)
    try:
        text = _decode(source)
    except (SyntaxError, UnicodeDecodeError, LookupError):
        reasons["undecodable file"] += 1
        return Extraction([], reasons)
    if "def " not in text:
        return Extraction([], reasons)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        reasons["unparseable file"] += 1
        return Extraction([], reasons)
    lines = NEWLINE.split(text)
    seen: Counter[str] = Counter()
    functions = []
    for name, node in _definitions(tree.body, ""):
        reasons["functions"] += 1
        made = _function(name, node, lines, path, package, reasons)
        if made is not None:
            seen[name] += 1
            functions.append(made if seen[name] == 1 else made._replace(id=f"{made.id}#{seen[name]}"))
    return Extraction(functions, reasons)


def _decode(source: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    return source.decode(encoding)


def _definitions(body: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[str, FunctionNode]]:
    """Qualified name and node of functions in a module, its classes, and their `if`, `try` and `with` blocks."""
    for node in body:
        if isinstance(node, FunctionNode):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            yield from _definitions(node.body, prefix)
            for handler in getattr(node, "handlers", []):
                yield from _definitions(handler.body, prefix)
            yield from _definitions(getattr(node, "orelse", []), prefix)
            yield from _definitions(getattr(node, "finalbody", []), prefix)


def _function(
    name: str, node: FunctionNode, lines: list[str], path: str, package: str, reasons: Counter[str]
) -> Function | None:
    """The record of one function, or None (and a reason counted) where it does not pass the filters."""
    plain = node.name
    if plain.startswith("__") and plain.endswith("__"):
        reasons["dunder method"] += 1
        return None
    if plain.lower().startswith("test") or ".Test" in f".{name}":
        reasons["test"] += 1
        return None
    source, body = remove_docstring(node, lines)
    if sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in body) < MIN_BODY_LINES:
        reasons["short body"] += 1
        return None
    if len(source) > MAX_CHARACTERS:
        reasons["long source"] += 1
        return None
    docstring = ast.get_docstring(node)
    flaw = "no docstring" if docstring is None else None
    sentence = first_sentence(docstring) if docstring is not None else ""
    flaw = flaw or sentence_flaw(sentence)
    if flaw is not None:
        reasons[flaw] += 1
    line = _first_line(node)
    return Function(f"{path}:{name}", package, path, name, line, source, None if flaw else sentence)


def _first_line(node: FunctionNode) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def remove_docstring(node: FunctionNode, lines: list[str]) -> tuple[str, list[str]]:
    """The function's dedented source without its docstring, and the lines of its body alone.

    Works on lines, not on the tree, so that comments and formatting stay. `lines` are the file's, cut at every newline
    that Python counts.
    """
    first, last = _first_line(node) - 1, node.end_lineno or node.lineno
    indent = lines[node.lineno - 1][: node.col_offset]
    statement = node.body[0]
    if not (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    ):
        start = max(statement.lineno - 1, node.lineno)
        return _dedent(lines[first:last], indent), lines[start:last]
    start, end = statement.lineno - 1, statement.end_lineno or statement.lineno
    before = _slice(lines[start], 0, statement.col_offset)
    after = _slice(lines[end - 1], statement.end_col_offset or 0, None).strip().lstrip(";").strip()
    # A docstring on the line of `def`, or code behind it on its last line, leaves that line with what is left of it.
    remainder = [before + after] if before.strip() or after else []
    body = ([after] if after else []) + lines[end:last]
    while body and not body[0].strip():
        body = body[1:]
    kept = lines[first:start] + (remainder + lines[end:last] if remainder else body)
    return _dedent(kept, indent), body


def _slice(line: str, start: int, end: int | None) -> str:
    """Part of a line by UTF-8 byte offsets, which is how the tree counts columns."""
    return line.encode("utf-8")[start:end].decode("utf-8")


def _dedent(lines: list[str], indent: str) -> str:
    """Lines without the indentation of the `def` line; lines that lack it (inside strings) stay as they are."""
    return "\n".join(line.removeprefix(indent).rstrip() if line.strip() else "" for line in lines).strip("\n")
