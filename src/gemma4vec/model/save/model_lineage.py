"""What the model in a folder was trained on (`ledger.lineage`), by its own settings and the contents of its weights."""

from pathlib import Path

from gemma4vec.ledger.lineage import Lineage, lineage_of_model
from gemma4vec.model.save.quantization import QUANTIZATION
from gemma4vec.model.save.read_model import SETTINGS_FILE, read_settings, saved_fingerprint

# In the settings of a model that was made from others without a run of its own: what those were trained on.
LINEAGE = "lineage"


def lineage_of_folder(folder: Path, weights: str | None, name: str) -> Lineage:
    """Return what the model in a folder was trained on, itself and through its ancestors.

    Args:
        folder: a saved model, wherever it was copied to, or one of another tool.
        weights: hash of its weights (`model.bases.weights.hash_weights`), if known.
        name: of the model, for a lineage that nobody knows.

    Raises:
        InputError: the settings of a saved model are damaged.
    """
    settings = read_settings(folder) if (folder / SETTINGS_FILE).is_file() else {}
    if isinstance(settings.get(LINEAGE), dict) and saved_fingerprint(folder, settings) == settings["fingerprint"]:
        return Lineage.from_json(settings[LINEAGE])
    recorded = str(settings.get("name")) if settings else None
    plain = not (folder / "modules.json").is_file()
    return lineage_of_model(folder, weights, name, recorded_name=recorded, pretrained=plain)


def quantized_from(folder: Path) -> str | None:
    """Return the hash of the weights that a quantized model was made from; None for every other model.

    Raises:
        InputError: the settings of a saved model are damaged.
    """
    found = read_settings(folder).get(QUANTIZATION) if (folder / SETTINGS_FILE).is_file() else None
    return str(found.get("source_weights")) if isinstance(found, dict) else None
