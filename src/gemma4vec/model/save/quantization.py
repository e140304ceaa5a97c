"""A saved model whose matrices lie on a quantization grid: written, described, and read back for a check.

The folder is an ordinary one: its weights are the dequantized values in fp32, which any program opens. The key
`quantization` of `gemma4vec.json` names the scheme. A GGUF file of the same scheme holds exactly these values, because
the grids of blocks map their own values to themselves. No such file exists for a scheme with one scale a row, so its
codes and scales are stored too, in `quantized/codes.safetensors`.

Shapes: O outputs (rows), I inputs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gemma4vec.errors import WorkError
from gemma4vec.model.adapters.fake_quantize import merge, quantized_grids
from gemma4vec.model.adapters.grids import Grid, Quantized, check_finite, dequantize, quantize, round_to_grid
from gemma4vec.model.adapters.schemes import HEAD, grids_of
from gemma4vec.model.bases.sentence_transformers_folder import read_modules
from gemma4vec.model.bases.weight_files import read_header
from gemma4vec.model.encoder.build import EmbeddingModel

QUANTIZATION = "quantization"
CODES_FILE = "quantized/codes.safetensors"


@dataclass(frozen=True)
class Quantization:
    """How a saved model is quantized.

    Attributes:
        scheme: a key of `SCHEMES`.
        source: name of the model before it.
        source_weights: hash of that model's weights.
        trained: whether it was trained for the grid, or rounded after training.
    """

    scheme: str
    source: str
    source_weights: str
    trained: bool

    def as_json(self) -> dict[str, Any]:
        """The attributes by name."""
        return asdict(self)

    def describe(self, size_bytes: int) -> str:
        """The model card's section; `size_bytes` is the size of codes and scales."""
        how = "trained for it with fake quantization, starting from" if self.trained else "rounded after training, from"
        files = (
            f"Codes and scales are in `{CODES_FILE}`."
            if self.scheme == "mixed"
            else f"A GGUF file of the type {self.scheme} holds exactly these values."
        )
        return (
            f"The matrices are quantized by the scheme `{self.scheme}`: {how} `{self.source}` (weights "
            f"`{self.source_weights[:12]}`). Stored here are the dequantized values in fp32; quantized they take "
            f"{size_bytes / 1e6:,.1f} MB. {files}"
        )


@dataclass(frozen=True)
class SavedWeight:
    """A weight of a model folder.

    Attributes:
        file: its safetensors file.
        tensor: its name in the file.
        name: its name in a scheme: that of the file, or `head.N`.
        shape: its shape.
    """

    file: Path
    tensor: str
    name: str
    shape: tuple[int, ...]


def scheme_of(settings: Mapping[str, Any]) -> str | None:
    """The scheme of a saved model by its settings; None: it is not quantized."""
    found = settings.get(QUANTIZATION)
    return str(found["scheme"]) if isinstance(found, dict) and "scheme" in found else None


def saved_weights(folder: Path) -> Iterator[SavedWeight]:
    """Every weight of the base and of the head in a model folder. A readout's own parameters are not among them."""
    for file in sorted(folder.glob("model*.safetensors")):
        for name, _, shape in read_header(file):
            yield SavedWeight(file, name, name, shape)
    dense = [folder / str(module["path"]) for module in read_modules(folder) if str(module["type"]).endswith(".Dense")]
    for number, place in enumerate(dense):
        for name, _, shape in read_header(place / "model.safetensors"):
            if name == "linear.weight":
                yield SavedWeight(place / "model.safetensors", name, f"{HEAD}{number}", shape)


def saved_grids(folder: Path, scheme: str) -> dict[str, tuple[SavedWeight, Grid]]:
    """The weights that the scheme quantizes, by name.

    Raises:
        InputError: as `grids_of`.
    """
    weights = {weight.name: weight for weight in saved_weights(folder)}
    grids = grids_of(scheme, {name: weight.shape for name, weight in weights.items()})
    return {name: (weights[name], grid) for name, grid in grids.items()}


def quantized_bytes(grids: Mapping[str, tuple[SavedWeight, Grid]]) -> int:
    """Bytes of all codes and scales."""
    return sum(grid.size_bytes(*weight.shape) for weight, grid in grids.values())


def merge_and_round(built: EmbeddingModel, scheme: str) -> None:
    """Merge the adapters of a model and round its matrices, as training with fake quantization reads them.

    Raises:
        InputError: a weight is not finite.
    """
    backbone = built.encoder.backbone
    with torch.no_grad():
        for layer in [one for one in backbone.model.modules() if hasattr(one, "lora_A")]:
            (name,) = layer.active_adapters
            weight = layer.base_layer.weight
            merge(weight, layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name]), weight)
        if built.adapters is not None:
            backbone.model = built.adapters.unload()
        grids = quantized_grids(backbone, built.encoder.head_layers, scheme)
        named = dict(backbone.model.named_parameters())
        named |= {f"{HEAD}{number}": layer.weight for number, layer in enumerate(built.encoder.head_layers)}
        for name, grid in grids.items():
            check_finite(named[name], name)
            round_to_grid(named[name], grid, named[name])


def write_codes(folder: Path, scheme: str) -> None:
    """Write codes and scales of a folder on the grid, where no other format has them.

    int4 codes of rows of even length are two in a byte, the first in the low half; others are bytes, as int8 codes are.
    Scales are fp32, one a row.
    """
    from safetensors.torch import save_file

    found: dict[str, Tensor] = {}
    for name, (weight, grid) in saved_grids(folder, scheme).items():
        if grid.block is not None:
            return
        codes_OI, found[f"{name}.scales"] = quantize(_read(weight), grid)
        pack = grid.bits == 4 and codes_OI.shape[1] % 2 == 0
        found[f"{name}.{'int4' if pack else 'int8'}"] = _packed(codes_OI) if pack else codes_OI
    (folder / CODES_FILE).parent.mkdir()
    save_file(found, folder / CODES_FILE, metadata={"scheme": scheme})
    (folder / CODES_FILE).chmod(0o644)


def read_codes(folder: Path) -> dict[str, Quantized]:
    """Codes and scales by the name of the matrix; empty if the folder has none."""
    from safetensors.torch import load_file

    if not (folder / CODES_FILE).is_file():
        return {}
    tensors = load_file(folder / CODES_FILE)
    found: dict[str, Quantized] = {}
    for key, codes in tensors.items():
        name, _, kind = key.rpartition(".")
        if kind in ("int4", "int8"):
            found[name] = Quantized(_unpacked(codes) if kind == "int4" else codes, tensors[f"{name}.scales"])
    return found


def check_written(folder: Path, scheme: str, evaluated: Mapping[str, Tensor] | None = None) -> None:
    """Read a written folder back, and compare its matrices with the grid, with its codes, and with what was evaluated.

    Args:
        folder: the folder.
        scheme: its scheme.
        evaluated: quantized weights by name, in any dtype, as a model that was evaluated held them; None: no other
            model was.

    Raises:
        WorkError: a value differs; the line names the matrix.
    """
    codes, left = read_codes(folder), dict(evaluated or {})
    for name, (weight, grid) in saved_grids(folder, scheme).items():
        value_OI = _read(weight)
        if not torch.equal(round_to_grid(value_OI, grid), value_OI):
            raise WorkError(f"{name}: what was written is not on the grid of {scheme}; nothing was kept")
        if grid.block is None and not torch.equal(dequantize(codes[name]), value_OI):
            raise WorkError(f"{name}: its codes in {CODES_FILE} are not its weights; nothing was kept")
        for known in [one for one in left if name == one or name.endswith(f".{one}")]:
            expected = left.pop(known).cpu()
            if not torch.equal(value_OI.to(expected.dtype), expected):
                raise WorkError(f"{name}: what was written differs from what was evaluated; nothing was kept")
    if left:
        raise WorkError(f"{next(iter(left))}: it was evaluated, and is not in what was written; nothing was kept")


def _read(weight: SavedWeight) -> Tensor:
    """A weight in fp32."""
    from safetensors import safe_open

    with safe_open(weight.file, framework="pt") as opened:
        return opened.get_tensor(weight.tensor).float()


def _packed(codes_OI: Tensor) -> Tensor:
    """uint8 `[O, I / 2]`: codes of 4 bits in two's complement, two in a byte."""
    nibbles = codes_OI.view(torch.uint8) & 0xF
    return nibbles[:, ::2] | (nibbles[:, 1::2] << 4)


def _unpacked(bytes_OI: Tensor) -> Tensor:
    """The int8 codes of `_packed`, `[O, I]`."""
    nibbles = torch.stack([bytes_OI & 0xF, bytes_OI >> 4], dim=2).flatten(1).to(torch.int8)
    return torch.where(nibbles > 7, nibbles - 16, nibbles)
