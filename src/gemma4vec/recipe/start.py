"""A run that starts from a trained model: `model.start`, and the keys of `model` that come from it.

The start has a base, a readout, a head and prompts. A recipe may leave these keys out: they are the start's. Those that
it gives must be the start's, since trained weights have no meaning below other settings. Where the start has no trained
readout or head, the recipe may add one, whose weights are random then.
"""

import logging
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.reading.json_values import JsonError, load_own_json
from gemma4vec.recipe.part import Part
from gemma4vec.recipe.renamed import current_names
from gemma4vec.recipe.schema import Model

logger = logging.getLogger(__name__)

SETTINGS_FILE, READOUT_FILE = "gemma4vec.json", "readout.safetensors"
# Keys that must be the start's; `max_tokens` is the start's where the recipe gives none, and may be another.
CARRIED = ("base", "attention", "layers", "readout", "head", "prompts", "allow_untested")
_FREE = ("max_tokens",)


def find_start(name: str, where: str = "recipe") -> Path:
    """Return the model folder of a start, absolute.

    Args:
        name: a run's folder, its id below the outputs' home, `latest`, or a folder that gemma4vec saved.
        where: what the recipe is called in messages.

    Raises:
        InputError: nothing is there, the run is not finished, or another program saved the model.
    """
    path = Path(name).expanduser()
    if not path.is_dir() and name == "latest":
        runs = sorted(home().glob("*/manifest.json"))
        path = runs[-1].parent if runs else path
    elif not path.is_dir() and len(Path(name).parts) == 1:
        path = home() / name
    if not path.is_dir():
        raise InputError(f"{where}: model.start: there is no run or model folder {name!r}")
    path = path.resolve()
    if (path / SETTINGS_FILE).is_file():
        return path
    if (path / "manifest.json").is_file():
        if not (path / "model" / SETTINGS_FILE).is_file():
            raise InputError(
                f"{where}: model.start: {path} has no finished model yet; go on with: gemma4vec train --resume {path}"
            )
        return path / "model"
    raise InputError(
        f"{where}: model.start: {path} was not saved by gemma4vec, so its readout, head and prompts are unknown; "
        "give it as model.base, whose transformer alone is used"
    )


def start_model(folder: Path, where: str = "recipe") -> Model:
    """Return what a saved model's settings say of the keys that a run carries on.

    Raises:
        InputError: the file is missing or damaged.
    """
    file = folder / SETTINGS_FILE
    try:
        settings = load_own_json(file)["model"]
        if not isinstance(settings, dict):
            raise TypeError("model is expected")
        settings = current_names(settings, SETTINGS_FILE, at="model", log=False)
        return Model.model_validate({key: settings[key] for key in (*CARRIED, *_FREE) if key in settings})
    except (OSError, JsonError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{where}: model.start: {file} is damaged ({reason}); export the model again") from error


def carried_parts(model: Model) -> tuple[str, ...]:
    """Return which of `readout` and `head` a model has from its start: those with the start's settings."""
    own = start_model(Path(str(model.start)))
    return tuple(key for key in ("readout", "head") if getattr(model, key) == getattr(own, key))


def fill_from_start(tree: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a recipe's tree with the keys of `model` that it leaves to its start; unchanged where it has none.

    Raises:
        InputError: there is no such start, or a key that the recipe gives has another value there.
    """
    model = tree.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("start"), str):
        return tree
    folder = find_start(model["start"], where)
    own = start_model(folder, where)
    given = {key: model[key] for key in CARRIED if key in model}
    try:
        wanted = Model.model_validate(given)
    except ValueError:
        return tree  # validation of the whole recipe names the key
    for key in given:
        here, there = (getattr(part, key) for part in (wanted, own))
        if here != there and _may_be_new(key, own, folder):
            logger.info(f"model.{key}: {_short(here)} instead of the start's {_short(there)}; its weights are new")
        elif here != there:
            raise InputError(
                f"{where}: model.{key} is {_short(here)}, and {_short(there)} in its start {folder}; leave the key out"
            )
    carried = own.model_dump(mode="json", include={*CARRIED, *_FREE})
    return tree | {"model": carried | model | {"start": str(folder)}}


def _may_be_new(key: str, own: Model, folder: Path) -> bool:
    if key == "readout":
        return not (folder / READOUT_FILE).is_file() and own.head is None
    return key == "head" and own.head is None


def _short(value: object) -> str:
    text = str(value.model_dump(mode="json")) if isinstance(value, Part) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
