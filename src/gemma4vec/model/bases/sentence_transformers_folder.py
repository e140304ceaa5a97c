"""Use a sentence-transformers folder as a base: its transformer alone. What is ignored is reported."""

from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.reading.json_values import load_foreign_json, read_json


def transformer_folder(path: str | Path) -> Path:
    """Folder of the transformer: the folder itself, or the first module of its modules.json.

    Raises:
        InputError: modules.json is damaged.
    """
    path = Path(path)
    modules = read_modules(path)
    return path / modules[0].get("path", "") if modules else path


def describe_ignored_layers(path: str | Path) -> str | None:
    """One line about the ignored dense layers of a sentence-transformers folder; None: there are none.

    Pooling and prompts always come from the recipe, so they are not reported.
    """
    path = Path(path)
    sizes = []
    for module in read_modules(path):
        config = path / module.get("path", "") / "config.json"
        if module.get("type", "").endswith("Dense") and config.is_file():
            dense = read_json(config, "the dense layer's settings", "download the model again", foreign=True)
            sizes.append(f"{dense.get('in_features')} to {dense.get('out_features')}")
    if not sizes:
        return None
    return (
        f"{path.name}: its transformer is the base; its {len(sizes)} dense layer(s) ({', '.join(sizes)}) are ignored: "
        "a head in the recipe starts from random weights"
    )


def read_modules(path: Path) -> list[dict[str, Any]]:
    """The modules of modules.json, in order; empty if there is no such file.

    Raises:
        InputError: it is damaged.
    """
    file = path / "modules.json"
    if not file.is_file():
        return []
    try:
        modules = load_foreign_json(file)
        return [dict(module) for module in sorted(modules, key=lambda module: module["idx"])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"model.base: {file} cannot be read ({error})") from error
