"""Training with fake quantization: the forward pass reads quantized weights, the optimizer updates unquantized ones.

With the unquantized weight W, its copy Q(W) on the grid and the loss L, the straight-through estimator (Bengio et al.
2013, arXiv:1308.3432, section 4; quantization-aware training: Jacob et al. 2018, arXiv:1712.05877, section 3) updates W
by the gradient at Q(W): dL/dW := dL/dQ(W). Weights are constant within an optimizer step, so Q(W) is computed once a
step, in place, whatever the number of micro-batches.

What is quantized is what a saved model has: with LoRA the merged weight W + s B A, never A and B alone. Its gradient
goes to A and B through two narrow products, so that no gradient of a whole weight is ever computed:

    y = x Q(W + s B A)^T,    dL/dA := s (g B)^T x,    dL/dB := s g^T (x A^T),    dL/dx = g Q(W + s B A)

for a gradient g of y. Frozen weights are rounded once. Of trained token embeddings, only the rows that a forward pass
reads are rounded, when it reads them.

Shapes: T tokens, I inputs, O outputs, R rank.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.errors import InputError
from gemma4vec.model.adapters.grids import Grid, round_to_grid, row_pieces
from gemma4vec.model.adapters.schemes import HEAD, grids_of
from gemma4vec.model.backbone.backbone import Backbone, load_backbone
from gemma4vec.model.bases.sentence_transformers_folder import transformer_folder
from gemma4vec.model.bases.weight_files import tensor_headers

_BASE, _BACKBONE = ".base_layer", "backbone.model."


def quantized_grids(backbone: Backbone, head: Sequence[nn.Linear], scheme: str) -> dict[str, Grid]:
    """The grid of each quantized weight of an encoder, by its name as in a saved model (`head.N` for the head).

    Raises:
        InputError: as `grids_of`; a base that is saved together with weights of another tower.
    """
    if backbone.config.model_type == "t5gemma2_text":
        raise InputError(f"{scheme}: a t5gemma2 is saved with a vision tower, which no scheme covers; use another base")
    return grids_of(scheme, {saved: parameter.shape for saved, _, parameter in _weights(backbone, head)})


def _weights(backbone: Backbone, head: Sequence[nn.Linear]) -> Iterator[tuple[str, str, nn.Parameter]]:
    """(name as in a saved model, name in the encoder, parameter) of every weight of base and head, without adapters."""
    for name, parameter in backbone.model.named_parameters():
        if ".lora_" not in name:
            yield name.replace(_BASE, ""), f"{_BACKBONE}{name}", parameter
    for number, layer in enumerate(head):
        weight: Any = layer.weight  # a parameter, which the class only calls a tensor
        yield f"{HEAD}{number}", f"{HEAD}{number}.weight", weight


def merge(weight_OI: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float, out_OI: Tensor | None = None) -> Tensor:
    """W + s B A in fp32.

    Products and sums are in float64, so that training and saving round to the same fp32 on any device, with any number
    of threads.
    """
    out_OI = torch.empty(weight_OI.shape, device=weight_OI.device) if out_OI is None else out_OI
    a_RI = a_RI.double()
    for rows in row_pieces(weight_OI):
        out_OI[rows].copy_(torch.addmm(weight_OI[rows].double(), b_OR[rows].double(), a_RI, alpha=scale))
    return out_OI


@dataclass
class _Adapted:
    """A LoRA layer whose merged weight is quantized into the first columns of `layer.joined`."""

    layer: Any
    a_name: str
    b_name: str
    source_OI: Tensor
    grid: Grid
    scale: float

    def write(self, masters: Mapping[str, Tensor]) -> None:
        joined, width = self.layer.joined, self.source_OI.shape[1]
        a_RI, b_OR = (masters[name].detach().to(joined.device) for name in (self.a_name, self.b_name))
        for rows in row_pieces(self.source_OI):
            merged = merge(self.source_OI[rows], a_RI, b_OR[rows], self.scale)
            round_to_grid(merged, self.grid, joined[rows, :width])


@dataclass(frozen=True)
class _Trained:
    """A weight that is trained as it is, by its name as in a saved model."""

    saved: str
    parameter: nn.Parameter
    grid: Grid


class FakeQuantization:
    """The quantized weights of an encoder that is trained, evaluated or both.

    Making one changes the encoder for good: adapted layers read a quantized copy of their merged weight, frozen
    matrices are rounded. Call `refresh` whenever trained values have changed.

    Args:
        backbone: the base, with its adapters; its layers are not compiled.
        head: the head's layers, first to last; empty without a head.
        scheme: a key of `SCHEMES`.
        folder: where the base's weights were loaded from. Weights that were rounded to a narrower dtype when they were
            loaded are read from there again, in fp32. None: they were not.

    Attributes:
        trained: names of trained parameters whose values in the encoder are quantized, and so are not the optimizer's.

    Raises:
        InputError: a matrix that the scheme cannot have.
    """

    def __init__(self, backbone: Backbone, head: Sequence[nn.Linear], scheme: str, folder: Path | None = None):
        self.scheme, self._backbone, self._head = scheme, backbone, head
        self.grids = quantized_grids(backbone, head, scheme)
        exact = _read_again(backbone, folder)
        self._adapted = self._quantize_adapters(exact)
        self._matrices: dict[str, _Trained] = {}
        self._rows: dict[str, _Trained] = {}
        self._masters: dict[str, Tensor] = {}
        embeddings = {id(m.weight): m for m in backbone.model.modules() if isinstance(m, nn.Embedding)}
        for saved, name, parameter in _weights(backbone, head):
            if saved not in self.grids or saved in self._adapted:
                continue
            one = _Trained(saved, parameter, self.grids[saved])
            if not parameter.requires_grad:
                with torch.no_grad():
                    round_to_grid(exact.get(saved, parameter).to(parameter.device), one.grid, parameter.data)
            elif id(parameter) in embeddings:
                self._rows[name] = one
                self._round_rows_when_read(name, embeddings[id(parameter)], one.grid)
            else:
                self._matrices[name] = one
        self.trained = frozenset([*self._matrices, *self._rows])

    def refresh(self, masters: Mapping[str, Tensor]) -> None:
        """Quantize the trained weights again.

        Args:
            masters: unquantized trained values by parameter name, at full precision. Those of embeddings are kept, and
                read at each forward pass.
        """
        with torch.no_grad():
            for adapted in self._adapted.values():
                adapted.write(masters)
            for name, one in self._matrices.items():
                round_to_grid(masters[name].detach().to(one.parameter.device), one.grid, one.parameter.data)
            for name, one in self._rows.items():
                self._masters[name] = masters[name].detach().to(one.parameter.device)

    def weights(self) -> dict[str, Tensor]:
        """Every quantized weight as the encoder reads it, in its dtype, by its name as in a saved model."""
        found: dict[str, Tensor] = {}
        for saved, name, parameter in _weights(self._backbone, self._head):
            if saved in self._adapted:
                found[saved] = self._adapted[saved].layer.joined[:, : parameter.shape[1]]
            elif name in self._masters:
                found[saved] = round_to_grid(self._masters[name], self.grids[saved]).to(parameter.dtype)
            elif saved in self.grids:
                found[saved] = parameter.detach()
        return found

    def _quantize_adapters(self, exact: Mapping[str, Tensor]) -> dict[str, _Adapted]:
        """Let every adapted layer read its quantized merged weight."""
        layers = [(name, layer) for name, layer in self._backbone.model.named_modules() if hasattr(layer, "lora_A")]
        if not layers:
            return {}
        from gemma4vec.model.adapters.quantized_lora import quantize_lora  # imports peft, which only LoRA needs

        found: dict[str, _Adapted] = {}
        for place, layer in layers:
            adapter, scale = quantize_lora(layer)
            weight, saved, whole = layer.base_layer.weight, f"{place}.weight", f"{_BACKBONE}{place}"
            names = tuple(f"{whole}.lora_{part}.{adapter}.weight" for part in "AB")
            source = exact.get(saved, weight.detach()).to(weight.device)
            one = _Adapted(layer, names[0], names[1], source, self.grids[saved], scale)
            with torch.no_grad():
                one.write(dict(zip(names, (layer.lora_A[adapter].weight, layer.lora_B[adapter].weight), strict=True)))
            found[saved] = one
        return found

    def _round_rows_when_read(self, name: str, embedding: nn.Embedding, grid: Grid) -> None:
        """Before each lookup, write the rows that it reads, quantized, into the embedding matrix.

        The other rows are never read, so they may hold anything.
        """

        def write_rows(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            master = self._masters.get(name)
            if master is None:  # the first refresh has not come: the matrix is unquantized
                return
            with torch.no_grad():
                ids = arguments[0].unique()
                embedding.weight.data[ids] = round_to_grid(master[ids], grid).to(embedding.weight.dtype)

        embedding.register_forward_pre_hook(write_rows)


def _read_again(backbone: Backbone, folder: Path | None) -> Mapping[str, Tensor]:
    """The base's weights by name in fp32, where loading has rounded them; empty: it has not."""
    if folder is None or backbone.dtype in (torch.float32, torch.float64):
        return {}
    stored = {header.dtype for header in tensor_headers(transformer_folder(folder)).values()}
    if stored and not stored & {"F32", "F64"}:
        return {}
    wide = load_backbone(
        folder, causal=backbone.causal, dtype=torch.float32, allow_untested=True, layers=len(backbone.layers)
    )
    return {name: parameter.detach() for name, parameter in wide.model.named_parameters()}
