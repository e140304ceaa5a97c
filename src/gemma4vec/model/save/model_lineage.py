"""What the model in a folder was trained on (`ledger.lineage`), by its own settings and the contents of its weights."""

from pathlib import Path

from gemma4vec.ledger.lineage import Lineage, lineage_of_model
from gemma4vec.model.save.read_model import SETTINGS_FILE, read_settings


def lineage_of_folder(folder: Path, weights: str | None, name: str) -> Lineage:
    """Return what the model in a folder was trained on, itself and through its ancestors.

    Args:
        folder: a saved model, wherever it was copied to, or one of another tool.
        weights: hash of its weights (`model.bases.weights.hash_weights`), if known.
        name: of the model, for a lineage that nobody knows.

    Raises:
        InputError: the settings of a saved model are damaged.
    """
    recorded = str(read_settings(folder).get("name")) if (folder / SETTINGS_FILE).is_file() else None
    plain = not (folder / "modules.json").is_file()
    return lineage_of_model(folder, weights, name, recorded_name=recorded, pretrained=plain)
