"""The one reader of YAML: every way to fail is one `InputError` with its line.

PyYAML lets the last of two equal keys count, follows aliases without a limit ("billion laughs"), stops with
`RecursionError` at deep nesting and with `ValueError` at a date such as 2024-99-99.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gemma4vec.errors import InputError

MOST_BYTES = 2**24  # of a file
MOST_DEPTH = 50
MOST_VALUES = 200_000  # with every alias written out
MOST_DIGITS = 300
_MERGE = "tag:yaml.org,2002:merge"
_NUMBER = "tag:yaml.org,2002:int"
# But for U+DC80 to U+DCFF, which Python writes for the bytes of a path that is not UTF-8.
_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class YamlError(ValueError):
    """Why a text is no YAML value; lines count from 1."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe reader with limits, which refuses a key that is given twice."""

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = 0
        self._values: dict[int, int] = {}  # number of values below a node, aliases written out

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose one value, and count the values in it."""
        place, is_alias = _line(self.peek_event()), self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise YamlError(f"line {place}: nested too deeply (over {MOST_DEPTH} levels)")
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._values:
            raise YamlError(f"line {place}: an alias (*name) inside what it names")
        if node is not None and id(node) not in self._values:
            below = sum(self._values[id(one)] for one in _children(node))
            if below >= MOST_VALUES:
                raise YamlError(f"line {place}: over {MOST_VALUES:,} values once its aliases (*name) are written out")
            self._values[id(node)] = 1 + below
        return node

    def construct_mapping(self, node: Node, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys differ."""
        first: dict[Hashable, int] = {}
        for key_node, _ in node.value if isinstance(node, MappingNode) else ():
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in first:
                    raise YamlError(
                        f"the key {key!r} is given twice, in lines {first[key]} and {_line(key_node)}; remove one"
                    )
                first[key] = _line(key_node)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """A value; a fault names its line."""
        try:
            if node.tag == _NUMBER and isinstance(node, ScalarNode) and len(node.value) > MOST_DIGITS:
                raise ValueError(f"an integer of over {MOST_DIGITS} digits")
            value = super().construct_object(node, deep)
        except YamlError:
            raise
        except (ValueError, OverflowError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise YamlError(f"line {_line(node)}: {_one_line(error) or 'not a value'}") from None
        if isinstance(value, str) and _SURROGATE.search(value):
            raise YamlError(f"line {_line(node)}: a lone surrogate, half a character; remove it")
        return value


def loads_yaml(text: str) -> Any:
    """The value of a YAML text of one document, read safely: numbers, strings, dates, lists and mappings alone.

    Raises:
        YamlError: it is none; nested below 50 levels; over 200,000 values with its aliases written out; a key twice.
    """
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise YamlError(_explain(error)) from None
    except RecursionError:
        raise YamlError(f"nested too deeply (over {MOST_DEPTH} levels)") from None
    finally:
        if loader is not None:
            loader.dispose()


def parse_yaml(text: str, where: str) -> Any:
    """As `loads_yaml`; `where` names the text in errors.

    Raises:
        InputError: the text is not YAML, or beyond a limit; the line is named.
    """
    try:
        return loads_yaml(text)
    except YamlError as fault:
        raise InputError(f"{where} is not YAML: {fault}") from None


def read_text(path: str | Path, what: str) -> str:
    """The text of a UTF-8 file, without a byte-order mark; `what` names its kind in errors.

    Raises:
        InputError: the file is missing, cannot be read, or is not UTF-8.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            raw = stream.read(MOST_BYTES + 1)  # not its size, which a device does not have
        if len(raw) > MOST_BYTES:
            raise ValueError(f"longer than {MOST_BYTES // 2**20} MiB")
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"cannot read the {what} {file}: {getattr(error, 'strerror', None) or error}") from error


def read_yaml(path: str | Path, what: str) -> Any:
    """As `parse_yaml`, from a file.

    Raises:
        InputError: the file cannot be read or is not YAML.
    """
    return parse_yaml(read_text(path, what), f"the {what} {path}")


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [one for pair in node.value for one in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _line(mark: Any) -> int:
    start = mark.start_mark
    return int(start.line) + 1 if start is not None else 1


def _explain(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return _one_line(error)
    context = f"{error.context}, " if getattr(error, "context", None) else ""  # type: ignore[attr-defined]
    return f"line {mark.line + 1}, column {mark.column + 1}: {context}{problem}"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
