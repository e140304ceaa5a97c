"""Where the weights of a recipe's model come from: its base, or the trained model that it starts from."""

from dataclasses import replace
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.model.bases.resolve import ResolvedBase, check_model_folder, describe_folder, resolve_base
from gemma4vec.recipe.schema import Model
from gemma4vec.recipe.start import SETTINGS_FILE


def resolve_model(model: Model) -> ResolvedBase:
    """Bring what a model is built from onto this machine.

    A model that starts from a trained one has the start's folder as its path, and its base's name, license and terms.

    Raises:
        InputError: as `resolve_base`; the start is gone, or damaged.
    """
    if model.start is None:
        return resolve_base(model.base)
    folder = Path(model.start).expanduser()
    if not (folder / SETTINGS_FILE).is_file():
        raise InputError(f"model.start: there is no saved model in {folder}; put it back, or start a new run")
    check_model_folder(folder)
    return replace(describe_folder(model.base, folder.resolve()), name=model.base)
