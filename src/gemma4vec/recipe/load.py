"""Read a recipe: YAML, then `key.path=value` overrides, then validation with errors that people can act on."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from gemma4vec.errors import InputError
from gemma4vec.reading.yaml_values import parse_yaml, read_text
from gemma4vec.recipe.find import find_recipe
from gemma4vec.recipe.renamed import current_names, current_path
from gemma4vec.recipe.schema import Recipe
from gemma4vec.recipe.sources import KINDS, Source, source_of, with_kind
from gemma4vec.recipe.start import fill_from_start

P = TypeVar("P", bound=BaseModel)
SHOWN = 100  # characters of an override in a message


def load_recipe(
    recipe: str | Path | Mapping[str, object] | Recipe, overrides: Mapping[str, object] | Sequence[str] = ()
) -> Recipe:
    """Load what a run is: a YAML file, a recipe that comes with the package, or a mapping, checked key by key.

    Args:
        recipe: a file, the name of a shipped recipe such as `gemma4vec/echo_delta_causal` (see `recipe.find`), a
            mapping as the file would have it, or a recipe to change.
        overrides: applied in their order: `{"stages.0.batch.rows": 64}`, or `["stages.0.batch.rows=64"]` as typed.

    Returns:
        The recipe, which does not change any more; `recipe.model_dump()` is the mapping.

    Raises:
        InputError: the file is missing or not YAML, a key is unknown (with a suggestion), a value is wrong.

    Example:
        >>> import gemma4vec as g4v
        >>> recipe = g4v.load_recipe("gemma4vec/echo_delta_causal", {"model.base": "bundled:gemma-3-270m", "seed": 3})
        >>> recipe.model.readout.name, recipe.seed
        ('echo_delta', 3)
    """
    changes = [overrides] if isinstance(overrides, str) else typed_overrides(overrides)
    if isinstance(recipe, Recipe):
        return parse_recipe(dump_recipe(recipe), f"recipe {recipe.name}", changes)
    if isinstance(recipe, Mapping):
        return parse_recipe(_as_yaml(recipe, "recipe"), "recipe", changes)
    file = find_recipe(recipe)
    return parse_recipe(read_text(file, "recipe"), str(file), changes)


def typed_overrides(overrides: Mapping[str, object] | Sequence[str]) -> list[str]:
    """Overrides as a person types them, `key.path=value`, the value as YAML in one line.

    Raises:
        InputError: a value that YAML does not have.
    """
    if not isinstance(overrides, Mapping):
        return list(overrides)
    return [f"{key}={_as_yaml(value, f'override {key}')}" for key, value in overrides.items()]


def _as_yaml(value: object, where: str) -> str:
    """A value as YAML in one line: numbers, strings, paths, lists and mappings of them."""
    try:
        text: str = yaml.safe_dump(_plain(value), default_flow_style=True, allow_unicode=True, width=10**9)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: YAML has no {type(value).__name__} ({' '.join(str(error).split())})") from error
    return text.removesuffix("...\n").strip()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def parse_recipe(text: str, where: str, overrides: Sequence[str] = ()) -> Recipe:
    """As `load_recipe`, from YAML text; `where` names it in errors."""
    return validate(Recipe, fill_from_start(read_tree(text, where, overrides), where), where)


def parse_source(text: str, where: str, overrides: Sequence[str] = ()) -> Source:
    """A single source of training data, from YAML text with `key=value` overrides; `where` names it in errors."""
    tree = read_tree(text, where, overrides)
    try:
        tree = cast(dict[str, Any], with_kind(tree))
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    if tree["source"] not in KINDS:
        raise InputError(f"{where}: source: {_unknown_choice(str(tree['source']), list(KINDS))}")
    return source_of(**validate(KINDS[tree["source"]], tree, where).model_dump())


def parse_dump(text: str, where: str) -> Recipe:
    """As `parse_recipe`, for what `dump_recipe` wrote in this release or an earlier one: old key names are no news."""
    return validate(Recipe, read_tree(text, where, log=False), where)


def read_tree(text: str, where: str, overrides: Sequence[str] = (), *, log: bool = True) -> dict[str, Any]:
    """YAML text as nested mappings and lists, with `key.path=value` overrides applied, not yet validated.

    Old key names are replaced by today's, one line in the log for each (`recipe.renamed`).
    """
    tree = parse_yaml(text, where)
    if not isinstance(tree, dict):
        raise InputError(f"{where}: a recipe is a mapping of keys to values, found {type(tree).__name__}")
    tree = current_names(tree, where, log=log)
    for override in overrides:
        _apply(tree, override)
        tree = current_names(tree, f"override {override!r}")
    return tree


def validate(part: type[P], tree: dict[str, Any], where: str) -> P:
    """`tree` as a typed value; an error says in one line what is wrong, with a suggestion for an unknown key."""
    try:
        return part.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(error, part)}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML, defaults spelled out."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return text


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, value_text = override.partition("=")
    if not separator or not key:
        raise InputError(f"override {_short(override)}: write key.path=value, for example stages.0.batch.rows=64")
    value = parse_yaml(value_text, f"override {_short(override)}: the value")
    node: Any = tree
    key = current_path(key)
    *parents, last = key.split(".")
    for parent in parents:
        node = _child(node, parent, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise InputError(f"override {_short(override)}: {'.'.join(parents)[:SHOWN]} is a value, not a mapping")


def _child(node: Any, name: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, name, key)]
    if isinstance(node, dict):
        if node.get(name) is None:
            node[name] = {}
        return node[name]
    raise InputError(f"override {_short(key)}: {_short(name)} is below a value, not a mapping")


def _index(node: list[Any], name: str, key: str) -> int:
    # Other scripts' digits and superscripts are digits to Python too; not all of them can be read as a number.
    if re.fullmatch("[0-9]{1,9}", name) is None or int(name) >= len(node):
        known = f"use 0 to {len(node) - 1}" if node else "the list is empty"
        raise InputError(f"override {_short(key)}: {_short(name)} is not a valid index; {known}")
    return int(name)


def _short(text: str) -> str:
    """What a person typed, quoted, and cut where it is long."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def _explain(error: ValidationError, whole: type[BaseModel]) -> str:
    """The first problem in one line, with a suggestion where a key is unknown, and how many more there are."""
    every = error.errors()
    # A sequence with a bad item is also reported as too short; that follows from the item.
    problems = [p for p in every if p["type"] != "too_short" or not _has_problem_below(p["loc"], every)]
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location, part = _walk(first["loc"], whole)
    where = ".".join(location)
    if first["type"] == "extra_forbidden":
        message = f"unknown key {_short(where)}{_suggestion(location[-1], part)}"
    elif first["type"] == "union_tag_invalid":
        context = first["ctx"]
        known = [_unquoted(name) for name in context["expected_tags"].split(", ")]
        message = f"{where}.{_unquoted(context['discriminator'])}: {_unknown_choice(context['tag'], known)}"
    else:
        reason = first["msg"].removeprefix("Value error, ")
        where = where or ("recipe" if whole is Recipe else "")
        message = f"{where}: {reason}" if where else reason
    more = len(problems) - 1
    return message + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _has_problem_below(location: tuple[int | str, ...], problems: Sequence[Any]) -> bool:
    return any(len(p["loc"]) > len(location) and p["loc"][: len(location)] == location for p in problems)


def _unknown_choice(given: str, known: Sequence[str]) -> str:
    """The tag of a part that comes in several kinds names none of them."""
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    return f"there is no {given!r}; {hint}"


def _unquoted(text: str) -> str:
    return text.strip("'")


def _suggestion(key: str, part: type[BaseModel] | None) -> str:
    fields = list(part.model_fields) if part else []
    close = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known here: {', '.join(fields)}" if fields else ""


def _walk(location: Iterable[int | str], whole: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None]:
    """A path as a person writes it, and the part of `whole` that holds its last key.

    Behind a key whose part comes in several kinds, pydantic puts the kind that was chosen; no such key is in the file.
    """
    path: list[str] = []
    part: type[BaseModel] | None = whole
    kinds: dict[str, type[BaseModel]] = {}
    inside: type[BaseModel] | None = whole
    is_name = False  # a key of a mapping from names to parts
    for step in location:
        if is_name:
            path.append(str(step))
            is_name = False
            continue
        if kinds and step in kinds:
            part, kinds = kinds[str(step)], {}
            continue
        path.append(str(step))
        inside = part
        if isinstance(step, str):
            field = part.model_fields.get(step) if part else None
            found = _parts_in(field.annotation) if field else []
            part = found[0] if found else None
            is_name = field is not None and get_origin(field.annotation) is dict
            kinds = _by_tag(found) if len(found) > 1 else {}
    return path, inside


def _by_tag(parts: Sequence[type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """Kinds of a part by the default of their first field (`name`, `kind`), which tells them apart."""
    return {str(next(iter(part.model_fields.values())).default): part for part in parts}


def _parts_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for argument in getattr(annotation, "__args__", ()) for part in _parts_in(argument)]
