"""Files with variables: `${NAME}` anywhere in a matrix or a plan is what its key `variables` says."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from gemma4vec.errors import InputError
from gemma4vec.reading.yaml_values import read_text
from gemma4vec.recipe.load import read_tree, validate

P = TypeVar("P", bound=BaseModel)
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def load_with_variables(part: type[P], path: str | Path, what: str, overrides: Sequence[str] = ()) -> P:
    """Read a YAML file as a `part`, with `key.path=value` overrides and its variables filled in.

    Args:
        part: has the key `variables`.
        path: the file.
        what: names it in the error of a missing one.
        overrides: applied in their order.

    Raises:
        InputError: the file is missing or not YAML, a key is unknown (with a suggestion), a variable is not set.
    """
    tree = read_tree(read_text(path, what), str(path), overrides)
    variables = tree.get("variables") or {}
    if not isinstance(variables, dict):
        raise InputError(f"{path}: variables: names with their values are needed")
    filled = {key: value if key == "variables" else _fill(value, variables, str(path)) for key, value in tree.items()}
    return validate(part, filled, str(path))


def _fill(value: Any, variables: dict[str, Any], where: str) -> Any:
    """`value` with every `${NAME}` replaced, all the way down."""
    if isinstance(value, dict):
        return {key: _fill(item, variables, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, variables, where) for item in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        name = match[1]
        if name not in variables:
            raise InputError(
                f"{where}: ${{{name}}} is none of its variables ({', '.join(variables) or 'there are none'})"
            )
        if variables[name] is None:
            raise InputError(f"{where}: the variable {name} is not set; give it with --set variables.{name}=...")
        return str(variables[name])

    return _VARIABLE.sub(replacement, value)
