"""Extract the functions of one Python file, with the docstring separated from the source.

Follows CodeSearchNet (Husain et al., 2019): functions and methods defined in a module or class (a nested function is
part of the outer one), no dunder methods, no tests, at least three lines of body.
"""

import ast
import io
import re
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gemma4vec.data.pycode.docstrings import extract_first_sentence, find_sentence_flaw

MIN_BODY_LINES, MAX_CHARACTERS = 3, 20_000
NEWLINE = re.compile(r"\r\n|\r|\n")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Function(NamedTuple):
    """A function: its location, its dedented source without docstring, and its docstring's first sentence.

    Attributes:
        id: `path:qualified.name`; further definitions of the same name end in `#2`, `#3`.
        package: top-level package.
        path: relative to the root that was walked, with slashes.
        name: qualified name.
        line: line of `def` or of the first decorator, from 1.
        query: the sentence; None if the docstring is missing or has no usable one.
    """

    id: str
    package: str
    path: str
    name: str
    line: int
    source: str
    query: str | None


class Extraction(NamedTuple):
    """Functions, and the numbers of files and functions: all of them, and those left out for each reason."""

    functions: list[Function]
    reasons: Counter[str]


def extract(source: bytes, path: str, package: str) -> Extraction:
    """Extract all functions that pass the filters; a file that cannot be decoded or parsed is only counted."""
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
    for name, node in _iterate_definitions(tree.body, ""):
        reasons["functions"] += 1
        function = _extract_function(name, node, lines, path, package, reasons)
        if function is not None:
            seen[name] += 1
            functions.append(function if seen[name] == 1 else function._replace(id=f"{function.id}#{seen[name]}"))
    return Extraction(functions, reasons)


def _decode(source: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    return source.decode(encoding)


def _iterate_definitions(body: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[str, FunctionNode]]:
    """Yield qualified name and node of the functions in a module, its classes, and their compound statements."""
    for node in body:
        if isinstance(node, FunctionNode):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _iterate_definitions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            yield from _iterate_definitions(node.body, prefix)
            for handler in getattr(node, "handlers", []):
                yield from _iterate_definitions(handler.body, prefix)
            yield from _iterate_definitions(getattr(node, "orelse", []), prefix)
            yield from _iterate_definitions(getattr(node, "finalbody", []), prefix)


def _extract_function(
    name: str, node: FunctionNode, lines: list[str], path: str, package: str, reasons: Counter[str]
) -> Function | None:
    """Return one function, or count a reason and return None if it does not pass the filters."""
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
    sentence = extract_first_sentence(docstring) if docstring is not None else ""
    flaw = flaw or find_sentence_flaw(sentence)
    if flaw is not None:
        reasons[flaw] += 1
    line = _first_line(node)
    return Function(f"{path}:{name}", package, path, name, line, source, None if flaw else sentence)


def _first_line(node: FunctionNode) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def remove_docstring(node: FunctionNode, lines: list[str]) -> tuple[str, list[str]]:
    """Return the function's dedented source without its docstring, and the lines of its body.

    Works on lines, not on the tree, to preserve comments and formatting.

    Args:
        node: the function.
        lines: the file's lines, split at every newline that Python counts.
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
    # Code that shares a line with the docstring (`def f(): "doc"; return 1`) stays.
    remainder = [before + after] if before.strip() or after else []
    body = ([after] if after else []) + lines[end:last]
    while body and not body[0].strip():
        body = body[1:]
    kept = lines[first:start] + (remainder + lines[end:last] if remainder else body)
    return _dedent(kept, indent), body


def _slice(line: str, start: int, end: int | None) -> str:
    """Slice a line by UTF-8 byte offsets, the columns of the syntax tree."""
    return line.encode("utf-8")[start:end].decode("utf-8")


def _dedent(lines: list[str], indent: str) -> str:
    """Join the lines without the indentation of the `def` line; lines without it (inside strings) stay unchanged."""
    return "\n".join(line.removeprefix(indent).rstrip() if line.strip() else "" for line in lines).strip("\n")
