"""A sentence-transformers folder as a base: its transformer is taken, the rest is named so that nobody misses it."""

import json
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError


def transformer_folder(path: str | Path) -> Path:
    """Where the transformer is: the folder itself, or what its modules.json names first.

    Raises:
        InputError: modules.json is damaged.
    """
    path = Path(path)
    modules = modules_of(path)
    return path / modules[0].get("path", "") if modules else path


def left_behind(path: str | Path) -> str | None:
    """One line about what a sentence-transformers folder has and a base is not: dense layers; None: there are none.

    Pooling and prompts are the recipe's to say, so they are not worth a line.
    """
    path = Path(path)
    sizes = []
    for module in modules_of(path):
        config = path / module.get("path", "") / "config.json"
        if module.get("type", "").endswith("Dense") and config.is_file():
            dense = json.loads(config.read_text(encoding="utf-8"))
            sizes.append(f"{dense.get('in_features')} to {dense.get('out_features')}")
    if not sizes:
        return None
    return (
        f"{path.name}: its transformer is the base; its {len(sizes)} dense layer(s) ({', '.join(sizes)}) are not taken "
        "over: a head of the recipe's own starts new"
    )


def modules_of(path: Path) -> list[dict[str, Any]]:
    """What modules.json names, in its order; nothing where there is none.

    Raises:
        InputError: it is damaged.
    """
    file = path / "modules.json"
    if not file.is_file():
        return []
    try:
        modules = json.loads(file.read_text(encoding="utf-8"))
        return [dict(module) for module in sorted(modules, key=lambda module: module["idx"])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"model.base: {file} cannot be read ({error})") from error
