"""Recipe keys that were renamed: the old names are still read, and still decide a recipe's id.

A key that is renamed gets a line in `RENAMED`. Then every recipe, override, matrix plan, run folder and saved model
that has the old name is read as before, and `recipe_id` hashes the first name that the key ever had.
"""

import copy
import functools
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from gemma4vec.errors import InputError

_log = logging.getLogger(__name__)

# Path of a key in a recipe under its old name (`*` for any item of a list) -> its name today.
RENAMED: dict[str, str] = {
    "model.readout.normalise": "normalize",
    "stages.*.optimiser": "optimizer",
    "stages.*.batch.distinct": "no_duplicates",
    "stages.*.batch.tokenise": "tokenize",
    "stages.*.layout.share_beginnings": "share_prefixes",
    "stages.*.layout.fast_paths.grouped_attention": "matmul_attention",
    "stages.*.layout.fast_paths.half_turn": "fused_rotary",
    "stages.*.layout.fast_paths.joined_adapters": "fused_lora",
    "stages.*.layout.fast_paths.last_tokens_only": "last_token_layer",
    "stages.*.task.kept_share": "unchanged_share",
    "stages.*.evaluation.beside": "background",
    "stages.*.evaluation.keep_at_shares": "snapshot_at_shares",
    "stages.*.evaluation.keep_every_steps": "snapshot_every_steps",
}

# Second names that are as good as the first; nothing is logged about them.
ALIASES: dict[str, str] = {"model.pooling": "readout"}


def current_names(tree: dict[str, Any], where: str, *, at: str = "", log: bool = True) -> dict[str, Any]:
    """Return a copy of a recipe's tree with today's key names; log one line for each old name.

    Args:
        tree: a recipe as YAML has it, or a part of one. It need not be valid.
        where: names it in the log and in errors.
        at: the path of the part, such as `model`.
        log: False for files that no person edits, such as those of a run folder.

    Raises:
        InputError: a key is there under both names.
    """
    tree = copy.deepcopy(tree)
    for path, new in (RENAMED | ALIASES).items():
        *above, old = _below(path, at)
        for place, part in mappings_at(tree, above) if old else ():
            if old not in part:
                continue
            if new in part:
                raise InputError(f"{where}: {_join(place, old)} and {_join(place, new)} are the same key; give one")
            _rename(part, old, new)
            if log and path in RENAMED:
                _announce(where, path, new)
    return tree


def current_path(path: str, where: str = "override") -> str:
    """Return a dotted path, such as `stages.0.optimiser.clip`, with today's key names; log one line for an old name."""
    steps = path.split(".")
    for pattern, new in (RENAMED | ALIASES).items():
        names = pattern.split(".")
        if len(steps) >= len(names) and all(name in ("*", step) for name, step in zip(names, steps, strict=False)):
            steps[len(names) - 1] = new
            if pattern in RENAMED:
                _announce(where, pattern, new)
    return ".".join(steps)


def first_names(tree: dict[str, Any], at: str = "") -> dict[str, Any]:
    """Return a copy of a recipe's tree with the first name of each key: what is hashed must never change.

    Args:
        tree: a recipe, or a part of one.
        at: the path of the part, such as `model`.
    """
    tree = copy.deepcopy(tree)
    for path, new in RENAMED.items():
        *above, old = _below(path, at)
        for _, part in mappings_at(tree, above) if old else ():
            if new in part:
                _rename(part, new, old)
    return tree


def mappings_at(tree: object, steps: list[str], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield place and value of each mapping at a path, `*` for any item of a list; none if there is no such part."""
    if not steps:
        if isinstance(tree, dict):
            yield place, tree
    elif steps[0] == "*":
        for number, item in enumerate(tree if isinstance(tree, list) else ()):
            yield from mappings_at(item, steps[1:], (*place, str(number)))
    elif isinstance(tree, Mapping) and steps[0] in tree:
        yield from mappings_at(tree[steps[0]], steps[1:], (*place, steps[0]))


def _below(path: str, at: str) -> list[str]:
    """The steps from a part to a key; a single empty one if the key is elsewhere."""
    if at and not path.startswith(f"{at}."):
        return [""]
    return path.removeprefix(f"{at}.").split(".")


def _rename(part: dict[str, Any], old: str, new: str) -> None:
    """In place, and at the same place in the order of keys."""
    items = [(new if key == old else key, value) for key, value in part.items()]
    part.clear()
    part.update(items)


@functools.cache
def _announce(where: str, path: str, new: str) -> None:
    """Once a process for each file and key: a recipe is often read several times."""
    old = path.rpartition(".")[2]
    _log.warning("%s: the key %r is now called %r (%s); the old name is still read", where, old, new, path)


def _join(place: tuple[str, ...], key: str) -> str:
    return ".".join((*place, key))
