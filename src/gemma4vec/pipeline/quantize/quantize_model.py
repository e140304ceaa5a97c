"""Quantize a finished model after training: its matrices are rounded to a grid, and nothing else changes."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.comparison.paired import Comparison
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.export.export_model import check_out
from gemma4vec.files import atomic_folder, check_writable, disk_errors, home, refuse_overwriting, write_json
from gemma4vec.ledger.run_folder import find_run
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.model.adapters.grids import Grid, check_finite, round_to_grid
from gemma4vec.model.adapters.schemes import check_scheme
from gemma4vec.model.bases.weights import hash_settings, hash_weights
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.save.model_card import with_quantization
from gemma4vec.model.save.model_lineage import LINEAGE, lineage_of_folder
from gemma4vec.model.save.quantization import (
    QUANTIZATION,
    Quantization,
    SavedWeight,
    check_written,
    quantized_bytes,
    saved_grids,
    scheme_of,
    write_codes,
)
from gemma4vec.model.save.read_model import SETTINGS_FILE, read_settings, saved_fingerprint
from gemma4vec.reading.json_values import read_json

logger = logging.getLogger(__name__)

# What belongs to the source and its other formats, not to the new model.
_LEFT_OUT = shutil.ignore_patterns("parity.json", "*.onnx", "*.onnx.data", "*.gguf", ".*")


@dataclass(frozen=True)
class QuantizedModel:
    """A model folder whose matrices lie on a grid.

    Attributes:
        folder: the model's folder.
        scheme: a key of `SCHEMES`.
        source: name of the model before it.
        trained: whether it was trained for the grid.
        matrices: number of quantized matrices.
        size_bytes: size of their codes and scales.
        error: norm of the change of these matrices, as a share of their norm; None for a trained one.
        run: folder of the training; None after training.
        comparisons: on each dev suite, the quantized model (A) with its source (B).
    """

    folder: Path
    scheme: str
    source: str
    trained: bool
    matrices: int
    size_bytes: int
    error: float | None = None
    run: Path | None = None
    comparisons: Sequence[Comparison] = ()

    def as_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return {
            "folder": str(self.folder),
            "scheme": self.scheme,
            "source": self.source,
            "trained": self.trained,
            "matrices": self.matrices,
            "size_bytes": self.size_bytes,
            "error": self.error,
            "run": str(self.run) if self.run is not None else None,
            "dev": [one.as_dict() for one in self.comparisons],
        }


def quantize_model(model: str | Path, scheme: str, out: Path, *, dev: Sequence[str | Path] = ()) -> QuantizedModel:
    """Round the matrices of a finished model to a scheme's grids, and write the result as an ordinary model folder.

    Before the folder gets its name it is opened, scored on the dev suites, and read back: its weights are on the grid,
    equal to its codes, and equal to those that were scored.

    Args:
        model: run folder, run id, `latest`, or a folder that gemma4vec saved.
        scheme: a key of `SCHEMES`.
        out: the new folder; an earlier model of ours there is replaced.
        dev: suites to score before and after; each is a look that the ledger records.

    Raises:
        InputError: no such model or scheme; a matrix that the scheme cannot have; a model that is quantized already;
            a final suite; a folder with other files.
        WorkError: what was written is not what was scored; nothing of it is left.
    """
    check_scheme(scheme)
    source = find_saved_model(str(model))
    settings = read_settings(source)
    if (before := scheme_of(settings)) is not None:
        raise InputError(f"{source} is quantized already, as {before}; quantize the model that it was made from")
    check_out(out)
    refuse_overwriting([out], [source])
    suites = [open_suite(str(spec)) for spec in dev]
    check_choice("--dev", *suites)
    grids = saved_grids(source, scheme)
    check_writable(out, sum(4 * weight.shape[0] * weight.shape[1] for weight, _ in grids.values()))
    name = str(settings.get("name", source.name))
    quantization = Quantization(scheme, name, hash_weights(source), trained=False)
    with atomic_folder(out) as temporary, disk_errors(out):
        error = write_quantized(source, temporary, settings, quantization, grids)
        quantized = open_checked(temporary, scheme)
        comparisons = [
            compare(evaluate(quantized, suite), evaluate(CachedEmbedder(Embedder.load(source)), suite))
            for suite in suites
        ]
    size = quantized_bytes(grids)
    return QuantizedModel(out, scheme, name, False, len(grids), size, error, comparisons=comparisons)


def find_saved_model(name: str) -> Path:
    """The folder of a finished model that gemma4vec saved.

    Raises:
        InputError: there is none.
    """
    folder = Path(name).expanduser()
    if not (folder / SETTINGS_FILE).is_file():
        if (folder / "modules.json").is_file() or (folder / "config.json").is_file():
            raise InputError(f"{folder} was not saved by gemma4vec; train a run from it, and quantize that")
        run = find_run(name, home())
        folder = run.model
        if not (folder / SETTINGS_FILE).is_file():
            raise InputError(f"{run.path} has no finished model; go on with: gemma4vec train --resume {run.path}")
    return folder.resolve()


def open_checked(folder: Path, scheme: str) -> Embedder:
    """Open a quantized folder, and compare what was opened with what the folder's files say.

    Raises:
        WorkError: they differ, or the weights are not on the grid.
    """
    found = Embedder.load(folder)
    assert isinstance(found, Embedder)  # the folder has our settings
    backbone, head = found.encoder.backbone, found.encoder.head_layers
    held: dict[str, Tensor] = {n: p.detach() for n, p in backbone.model.named_parameters()}
    held |= {f"head.{number}": layer.weight.detach() for number, layer in enumerate(head)}
    names = saved_grids(folder, scheme)
    check_written(folder, scheme, {name: value for name, value in held.items() if _is_in(name, names)})
    return found


def _is_in(name: str, names: Mapping[str, object]) -> bool:
    return any(one == name or one.endswith(f".{name}") for one in names)


def write_quantized(
    source: Path,
    folder: Path,
    settings: Mapping[str, Any],
    quantization: Quantization,
    grids: Mapping[str, tuple[SavedWeight, Grid]],
) -> float:
    """Fill an empty folder with the quantized copy of a model folder; return the relative change of its matrices."""
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=_LEFT_OUT)
    changed = torch.zeros(2, dtype=torch.float64)
    for file in sorted({weight.file for weight, _ in grids.values()}):
        of_file = {weight.tensor: (weight.name, grid) for weight, grid in grids.values() if weight.file == file}
        written, change = _rounded(file, of_file)
        changed += change
        save_file(written, folder / file.relative_to(source), metadata={"format": "pt"})
        (folder / file.relative_to(source)).chmod(0o644)
    config = read_json(folder / "config.json", "the model's configuration", "save the model again", foreign=True)
    config.pop("torch_dtype", None)
    write_json(folder / "config.json", config | {"dtype": "float32"})
    write_codes(folder, quantization.scheme)
    own = dict(settings) | {
        "name": f"{quantization.source}-{quantization.scheme}",
        "dtype": "float32",
        QUANTIZATION: quantization.as_json(),
        LINEAGE: lineage_of_folder(source, quantization.source_weights, quantization.source).as_json(),
    }
    own["fingerprint"] = saved_fingerprint(folder, own)
    own["files"] = hash_settings(folder)
    write_json(folder / SETTINGS_FILE, own)
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    described = quantization.describe(quantized_bytes(grids))
    card.write_text(with_quantization(text, described), encoding="utf-8")
    return float((changed[0] / changed[1].clamp_min(1e-300)).sqrt())


def _rounded(file: Path, grids: Mapping[str, tuple[str, Grid]]) -> tuple[dict[str, Tensor], Tensor]:
    """All tensors of a file in fp32, matrices rounded; squared norms of the change and of the matrices."""
    found: dict[str, Tensor] = {}
    changed = torch.zeros(2, dtype=torch.float64)
    with _opened(file) as opened:
        for tensor in opened.keys():  # noqa: SIM118  # not a mapping
            value = opened.get_tensor(tensor).float()
            if tensor in grids:
                name, grid = grids[tensor]
                check_finite(value, name)
                rounded = round_to_grid(value, grid)
                changed += torch.stack([(rounded - value).square().sum(), value.square().sum()]).double()
                value = rounded
            found[tensor] = value
    return found, changed


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} is damaged ({error}); save or download the model again") from error
