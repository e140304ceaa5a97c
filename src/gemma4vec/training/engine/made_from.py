"""The models and files that a run is made from, by their contents: base, small encoder, teachers.

The manifest has them from the run's start on (`made_from`), with absolute paths. A run that goes on, is evaluated or
exported later must find the same contents: other weights under the trained ones are a model that nobody trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.ledger.lineage import INHERITED, Lineage, union
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.machine.file_hashes import file_hash
from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.model.bases.weights import hash_settings, hash_weights
from gemma4vec.model.readout.context_encoder import find_encoder
from gemma4vec.model.save.model_lineage import lineage_of_folder
from gemma4vec.model.save.read_model import read_settings
from gemma4vec.recipe.readouts import ContextualToken
from gemma4vec.recipe.schema import Recipe

MADE_FROM = "made_from"
# Hashes of a part, and what each is the hash of, in words.
_HASHES = {"weights": "weights", "settings": "configuration or tokenizer", "sha256": "contents"}

Parts = dict[str, dict[str, Any]]
"""Key of the recipe -> {"name", "path", and hashes: "weights" and "settings" of a model, "sha256" of a file}."""


class ChangedInputError(InputError):
    """What a run was begun with has changed or is missing. The run itself is as it was and can go on later."""


def model_part(name: str, folder: Path) -> dict[str, Any]:
    """Describe a model that a run is made from, by the contents of its folder."""
    hashes = {"weights": hash_weights(folder), "settings": hash_settings(folder)}
    return {"name": name, "path": str(folder.resolve()), **hashes}


def file_part(path: Path) -> dict[str, Any]:
    """Describe a file that a run is made from."""
    return {"name": path.name, "path": str(path.resolve()), "sha256": file_hash(path)}


def own_parts(recipe: Recipe, base: ResolvedBase) -> Parts:
    """Describe what is part of the finished model: the base or start, and the small encoder of a readout that has one.

    The base of a start is what the start's own settings say, as the base itself need not be on this machine.
    """
    found = {"model.base": model_part(base.name, base.path)}
    if recipe.model.start is not None:
        found["model.start"] = model_part(recipe.model.start, base.path)
        found["model.base"] = _base_of_start(base) or found["model.base"]
    readout = recipe.model.readout
    if isinstance(readout, ContextualToken):
        found["model.readout.encoder"] = model_part(readout.encoder, find_encoder(readout.encoder))
    return found


def _base_of_start(start: ResolvedBase) -> dict[str, Any] | None:
    recorded = read_settings(start.path).get(MADE_FROM)
    part = recorded.get("model.base") if isinstance(recorded, dict) else None
    return dict(part) if isinstance(part, dict) and isinstance(part.get("weights"), str) else None


def check_parts(run: RunFolder, parts: Parts) -> None:
    """Refuse to go on with other contents than those that the run began with.

    Raises:
        ChangedInputError: one line with the path and both hashes.
    """
    began_with = run.manifest.get(MADE_FROM) or {}
    for key, now in parts.items():
        before = began_with.get(key) or {}
        for name, words in _HASHES.items():
            if before.get(name) and before[name] != now.get(name):
                raise changed(key, f"the {words} of {now.get('path', now['name'])}", before[name], str(now.get(name)))


def changed(key: str, what: str, before: str, now: str) -> ChangedInputError:
    """Return the error for contents that changed after a run began; `key` is the place in the recipe."""
    return ChangedInputError(
        f"{key}: {what} have changed since the run began: sha256 {now[:16]} now, {before[:16]} then; put the earlier "
        "contents back, or start a new run"
    )


def parts_to_save(parts: Parts) -> Parts:
    """Return what a saved model says of its parts: names and hashes, no path of this machine."""
    saved = {key: {name: value for name, value in part.items() if name != "path"} for key, part in parts.items()}
    for part in saved.values():
        folder = Path(part["name"])
        if folder.is_absolute():
            part["name"] = (folder.parent if folder.name == "model" else folder).name
    return saved


def record_parts(run: RunFolder, parts: Parts, ordering: Parts | None = None) -> None:
    """Store in the manifest what the run is made from, and what that was trained on.

    `ordering` are models that only choose which rows are in a batch together: no text or vector of theirs is learned
    from, so the run does not inherit what they were trained on.
    """
    found = union(_lineage(part) for part in parts.values() if "path" in part)
    run.update_manifest(**{MADE_FROM: parts | (ordering or {}), INHERITED: found.as_json()})


def has_begun(run: RunFolder) -> bool:
    """Return whether the run has trained at least one step."""
    return any(run.checkpoints.glob("*/*")) or bool(run.events("step"))


def _lineage(part: Mapping[str, Any]) -> Lineage:
    if "weights" not in part:
        return Lineage(unknown=(str(part["name"]),))
    return lineage_of_folder(Path(part["path"]), str(part["weights"]), str(part["name"]))
