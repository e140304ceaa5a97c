"""The models that go into a soup: finished runs, or model folders that runs or earlier soups wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.ledger.lineage import WEIGHTS, find_folder, find_manifest, runs_of_weights
from gemma4vec.ledger.records import find_enclosing_run
from gemma4vec.ledger.run_folder import RunFolder, find_run
from gemma4vec.model.bases.weights import hash_weights
from gemma4vec.model.readout.context_encoder import SAVED_FOLDER
from gemma4vec.model.save.read_model import SETTINGS_FILE, model_of, read_settings, saved_fingerprint
from gemma4vec.model.save.served_folder import ADVICE
from gemma4vec.pipeline.soup.tensors import TensorFolder
from gemma4vec.reading.json_values import read_json
from gemma4vec.recipe.schema import Model
from gemma4vec.training.engine.made_from import MADE_FROM, Parts

# A model's description (`made_from`) of what its training started from: an earlier model, else the base.
START, BASE = "model.start", "model.base"
# Readouts whose parameters start from random numbers; those of the others start from constants.
RANDOM_READOUTS = {"contextual_token", "latent_attention"}
# What may differ between models that have a mean: how they were trained, and what the base is called.
_FREE = {"base", "start", "lora", "train", "train_embeddings", "dtype", "allow_untested"}
# What may differ between their config.json.
_NOTES = {"architectures", "transformers_version", "torch_dtype", "dtype", "is_matryoshka", "matryoshka_dimensions"}


@dataclass(frozen=True)
class Ingredient:
    """A finished model.

    Attributes:
        name: its run's id.
        folder: its model folder.
        settings: contents of its gemma4vec.json.
        weights: hash of its weights (`model.bases.weights.hash_weights`).
        manifest: of its run, from the run's folder or from the ledger.
        run: its run's folder; None if that is gone.
        tensors: its tensors.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    weights: str
    manifest: Mapping[str, Any]
    run: RunFolder | None
    tensors: TensorFolder

    @property
    def model(self) -> Model:
        """The recipe's model part."""
        return model_of(dict(self.settings))

    @property
    def recipe_id(self) -> str:
        """Of its run; the beginning of its weights' hash if the run has none."""
        return str(self.manifest.get("recipe_id") or self.weights[:12])

    @property
    def start_key(self) -> str:
        """`START` or `BASE`: which part of `made_from` its training started from."""
        return START if START in self.manifest[MADE_FROM] else BASE

    @property
    def start(self) -> Mapping[str, str]:
        """What its training started from: "name", "weights", and "path" where this machine knows it."""
        found: Mapping[str, str] = self.manifest[MADE_FROM][self.start_key]
        return found

    @property
    def bf16(self) -> bool:
        """Whether weights were rounded to 16 bits when they were saved."""
        return any(place.dtype in ("BF16", "F16") for place in self.tensors.places.values())


def find_ingredients(specs: Sequence[str], least: int = 2) -> list[Ingredient]:
    """Find the models that people name, and refuse those that have no mean.

    Args:
        specs: run folders, run ids, or model folders.
        least: number of them; one where the start is mixed in.

    Raises:
        InputError: one line: too few models, one that is not finished, unknown or damaged, one twice, other
            starts, or something other than weights that differs.
    """
    if len(specs) < least:
        raise InputError("a soup needs at least two ingredients; name more runs or model folders")
    found = [find_ingredient(spec) for spec in specs]
    for number, one in enumerate(found):
        for other in found[:number]:
            if one.weights == other.weights:
                raise InputError(f"{specs[number]} has the weights of {other.name}; name each ingredient once")
    for other in found[1:]:
        check_same_settings(found[0], other)
    check_common_start(found)
    return found


def find_ingredient(spec: str) -> Ingredient:
    """Find one model by the name of its run or folder.

    Raises:
        InputError: there is no such model, its run is not finished or unknown, or its weights were replaced.
    """
    path = Path(spec).expanduser()
    run: RunFolder | None = None
    if not (path / SETTINGS_FILE).is_file():
        run = find_run(str(path) if path.is_dir() else spec, home())
        path = run.model
        if run.manifest.get("status") != "finished" or not (path / SETTINGS_FILE).is_file():
            raise InputError(
                f"{run.run_id} is not finished (its status is {run.manifest.get('status')}), and only a finished run "
                f"is an ingredient; go on with: gemma4vec train --resume {run.path}"
            )
    weights = hash_weights(path)
    settings = read_settings(path)
    manifest, run = _made_by(path, weights, str(settings.get("name")), run)
    if manifest is None:
        manifest = _own_record(path, settings)
    if manifest is None:
        raise InputError(
            f"{spec}: no run in {home()} made these weights, so what they were trained from is unknown; name the run, "
            "or set GEMMA4VEC_HOME to the folder of its ledger"
        )
    if manifest.get("status") != "finished":
        raise InputError(f"{spec} is a model of the unfinished run {manifest['run_id']}; finish the run first")
    if not (manifest.get(MADE_FROM) or {}).get(BASE):
        raise InputError(f"{spec}: its run did not record what it was trained from; train it again with this version")
    return Ingredient(str(manifest["run_id"]), path, settings, weights, manifest, run, TensorFolder(path))


def _made_by(
    folder: Path, weights: str, recorded_name: str, run: RunFolder | None
) -> tuple[Mapping[str, Any] | None, RunFolder | None]:
    """The manifest and folder of the run that made the weights; its folder may be gone. None: nobody knows it."""
    around = run or find_enclosing_run(folder)
    candidates: list[Mapping[str, Any]] = [around.manifest] if around is not None else []
    candidates += [found for name in (*runs_of_weights(weights), recorded_name) if (found := find_manifest(name))]
    for manifest in candidates:
        if manifest.get(WEIGHTS) == weights:
            return manifest, find_folder(str(manifest["run_id"])) or (around if manifest is candidates[0] else None)
    snapshots = [one for one in candidates if one.get("status") != "finished"]
    return (snapshots[0], None) if snapshots else (None, None)


def _own_record(folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a model from another machine says of itself, if its weights are those that were saved with it."""
    known = isinstance(settings.get(MADE_FROM), dict) and settings[MADE_FROM].get(BASE)
    if not known or saved_fingerprint(folder, dict(settings)) != settings["fingerprint"]:
        return None
    return {"run_id": str(settings.get("name")), "status": "finished", MADE_FROM: settings[MADE_FROM]}


def check_same_settings(one: Ingredient, other: Ingredient) -> None:
    """Refuse two models of which more differs than weights: the mean would be read as neither of them is.

    Raises:
        InputError: one line with the key and both values.
    """
    a, b = (model.model.model_dump(mode="json", exclude=_FREE) for model in (one, other))
    for key in a:
        if a[key] != b[key]:
            raise _differ(one, other, f"model.{key}", _short(a[key]), _short(b[key]))
    for file in ("tokenizer.json", "tokenizer.model"):
        contents = [model.folder / file for model in (one, other)]
        if [path.is_file() for path in contents] not in ([False, False], [True, True]) or (
            contents[0].is_file() and contents[0].read_bytes() != contents[1].read_bytes()
        ):
            raise _differ(one, other, f"the tokenizer ({file})")
    configs = [_config(model.folder) for model in (one, other)]
    for key in sorted(configs[0].keys() | configs[1].keys()):
        if configs[0].get(key) != configs[1].get(key):
            values = (_short(config.get(key)) for config in configs)
            raise _differ(one, other, f"{key} in config.json", *values)
    places = one.tensors.places, other.tensors.places
    for tensor in sorted(places[0].keys() | places[1].keys()):
        shapes = [list(found[tensor].shape) if tensor in found else "absent" for found in places]
        if shapes[0] != shapes[1]:
            raise _differ(one, other, f"the shape of {tensor}", str(shapes[0]), str(shapes[1]))
    if SAVED_FOLDER in {key.part.split("/")[0] for key in places[0]} and (
        hash_weights(one.folder / SAVED_FOLDER) != hash_weights(other.folder / SAVED_FOLDER)
    ):
        raise _differ(one, other, "the small encoder of the readout")


def check_common_start(ingredients: Sequence[Ingredient]) -> None:
    """Refuse models that were trained from other weights: what their coordinates mean differs, so they have no mean.

    One of them may be the start of the others.

    Raises:
        InputError: one line with two starts, or the part that began with random weights.
    """
    start = common_start(ingredients)
    reference = next(one for one in ingredients if one.weights != start["weights"])
    for other in ingredients:
        if other.weights != start["weights"] and other.start["weights"] != start["weights"]:
            one, two = (f"{start_name(part)} ({part['weights'][:12]})" for part in (start, other.start))
            raise InputError(
                f"{reference.name} was trained from {one} and {other.name} from {two}; only models from one start have "
                "a mean: train them with the same model.start"
            )
    random = None if reference.start_key == START else random_part(reference)
    if random is not None:
        raise InputError(
            f"{random} of {reference.name} began with random weights of its own, so the ingredients have no common "
            "start; train one model first, and the ingredients from it with model.start"
        )


def common_start(ingredients: Sequence[Ingredient]) -> Mapping[str, str]:
    """What the ingredients were trained from; of a model and its own start, what the former was trained from."""
    by_weights = {one.weights for one in ingredients}
    inside = [one.start for one in ingredients if one.start["weights"] in by_weights]
    return inside[0] if inside else ingredients[0].start


def start_parts(ingredients: Sequence[Ingredient]) -> Parts:
    """What `made_from` says of the base and the common start, for a model that is made from these."""
    start = common_start(ingredients)
    reference = next(one for one in ingredients if one.start["weights"] == start["weights"])
    return {key: dict(part) for key, part in reference.manifest[MADE_FROM].items() if key in (BASE, START)}


def start_name(start: Mapping[str, str]) -> str:
    """What people call a start: of a folder its run's id or its name, without the folders of this machine."""
    path = Path(start["name"])
    if not path.is_absolute():
        return start["name"]
    return path.parent.name if path.name == "model" else path.name


def random_part(ingredient: Ingredient) -> str | None:
    """The part of a model that starts from random weights where training starts from a base; None if all is known."""
    model = ingredient.model
    if model.head is not None:
        return "the head"
    return f"the readout {model.readout.name}" if model.readout.name in RANDOM_READOUTS else None


def _differ(one: Ingredient, other: Ingredient, what: str, first: str = "", second: str = "") -> InputError:
    values = f": {first} and {second}" if first else ""
    return InputError(f"{one.name} and {other.name} differ in {what}{values}; a soup needs equal ones")


def _config(folder: Path) -> dict[str, Any]:
    found = read_json(folder / "config.json", "the model's configuration", ADVICE, foreign=True)
    return {key: value for key, value in found.items() if key not in _NOTES and not key.startswith("_")}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
