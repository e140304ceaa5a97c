"""Write a soup as a model folder like that of a run: the same files, other weights, its own settings and card."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from gemma4vec.files import sha256_file, write_json
from gemma4vec.ledger.lineage import union
from gemma4vec.model.bases.weights import hash_lines, hash_settings
from gemma4vec.model.readout.context_encoder import SAVED_FOLDER
from gemma4vec.model.save.model_lineage import lineage_of_folder
from gemma4vec.model.save.read_model import FORMAT, SETTINGS_FILE, fingerprint_of
from gemma4vec.model.save.served_folder import ADVICE, matryoshka_dimensions
from gemma4vec.pipeline.soup.ingredients import Ingredient, start_parts
from gemma4vec.pipeline.soup.tensors import Key, Place, TensorFolder, write_tensors
from gemma4vec.reading.json_values import read_json
from gemma4vec.training.engine.made_from import parts_to_save

CARD = "README.md"
_WRITTEN_HERE = {CARD, SETTINGS_FILE}


BlocksOf = Callable[[Key], Iterator[Tensor]]
"""Yields the blocks of rows of a tensor, by its key."""


def write_soup_folder(
    folder: Path,
    ingredients: Sequence[Ingredient],
    blocks: BlocksOf,
    *,
    name: str,
    soup: Mapping[str, Any],
    card: str,
) -> str:
    """Fill an empty folder.

    Args:
        folder: to fill; the caller makes it appear whole (`files.atomic_folder`).
        ingredients: the models; the first one's files are carried over.
        blocks: yields the blocks of rows of a tensor, by its key.
        name: of the new model.
        soup: what it was made of, for its settings.
        card: its README.md.

    Returns:
        The hash of its weights (`model.bases.weights.hash_weights`).
    """
    template = ingredients[0]
    for source in sorted(template.folder.rglob("*")):
        inside = source.relative_to(template.folder)
        if not source.is_file() or source.suffix == ".safetensors" or str(inside) in _WRITTEN_HERE:
            continue
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / inside)
    _write_weights(folder, template.tensors, blocks)
    _describe(folder, ingredients)
    settings: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "dtype": "float32",
        "model": template.settings["model"],
        "made_from": parts_to_save(start_parts(ingredients)),
        "licence": template.settings.get("licence"),
        "soup": dict(soup),
        # What the ingredients were trained on, for a ledger that does not know the soup's run.
        "lineage": union(lineage_of_folder(one.folder, one.weights, one.name) for one in ingredients).as_json(),
    }
    weights = [f"{file.relative_to(folder)} {sha256_file(file)}" for file in sorted(folder.rglob("*.safetensors"))]
    settings["fingerprint"] = fingerprint_of(weights, settings)
    settings["files"] = hash_settings(folder)
    write_json(folder / SETTINGS_FILE, settings)
    (folder / CARD).write_text(card, encoding="utf-8")
    return hash_lines(weights)


def _write_weights(folder: Path, template: TensorFolder, blocks: BlocksOf) -> None:
    """Write every file of weights with the names of the template's; a small encoder that is equal in all is copied."""
    files: dict[Path, dict[Key, Place]] = {}
    for key, place in template.places.items():
        files.setdefault(place.file, {})[key] = place
    for file, places in files.items():
        target = folder / file.relative_to(template.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if SAVED_FOLDER in file.relative_to(template.folder).parts:
            shutil.copyfile(file, target)
            continue
        keys = {key.name: key for key in places}
        write_tensors(target, {key.name: place for key, place in places.items()}, partial(_named, blocks, keys))
        target.chmod(0o644)


def _named(blocks: BlocksOf, keys: Mapping[str, Key], name: str) -> Iterator[Tensor]:
    return blocks(keys[name])


def _describe(folder: Path, models: Sequence[Ingredient]) -> None:
    """Let the small files say fp32, the lengths that all models were trained for, and the size of shards."""
    file = folder / "config.json"
    config: dict[str, Any] = read_json(file, "the model's configuration", ADVICE, foreign=True)
    for key in ("dtype", "torch_dtype"):
        if key in config:
            config[key] = "float32"
    trained = [matryoshka_dimensions(model.folder) for model in models]
    common = sorted(set.intersection(*map(set, trained)))
    config = {key: value for key, value in config.items() if key not in ("is_matryoshka", "matryoshka_dimensions")}
    if len(common) > 1:
        config |= {"is_matryoshka": True, "matryoshka_dimensions": common}
    write_json(file, config)
    for index in folder.rglob("*.safetensors.index.json"):
        table = json.loads(index.read_text(encoding="utf-8"))
        shards = {index.parent / shard for shard in table.get("weight_map", {}).values()}
        table.setdefault("metadata", {})["total_size"] = sum(shard.stat().st_size for shard in shards)
        write_json(index, table)
