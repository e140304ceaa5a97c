"""The language-model head of a base, for tasks that predict tokens, and its cross-entropy without all logits in memory.

With a vocabulary of 262,144, the logits of 2,048 tokens take 2 GB in fp32. So the forward pass computes loss and
gradients block by block, and the backward pass only scales them (as in Liger kernels, arXiv:2410.10989). Never more
than one block of logits is stored.

Shapes: M predicted tokens, V vocabulary, D hidden size, B tokens of a block.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional

from gemma4vec.errors import InputError
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.reading.json_values import load_foreign_json

# Logits of a block: 2^24 values are 64 MB in fp32, 64 tokens of Gemma's vocabulary.
_BLOCK_VALUES = 2**24


@dataclass(frozen=True)
class LanguageModelHead:
    """Scores of the next token: `weight_VD @ state`, soft-capped if the model does so.

    Attributes:
        weight_VD: the embedding matrix if the two are tied (and then trained with it), else a frozen matrix.
        softcap: c of `c * tanh(logit / c)` (Gemma 2, arXiv:2408.00118, section 2), or None.
    """

    weight_VD: Tensor
    softcap: float | None

    def logits(self, states_MD: Tensor) -> Tensor:
        """All logits at once, `[M, V]`, in the states' dtype; for few states."""
        return _capped(states_MD @ self.weight_VD.T, self.softcap)

    def cross_entropy(self, states_MD: Tensor, targets_M: Tensor, block: int | None = None) -> Tensor:
        """Mean cross-entropy of the target tokens, a scalar, with the values and gradients of all logits at once.

        Products are computed in the weights' dtype, softmax and sum in fp32 or wider. `block` is B; None: as many as
        fit into 64 MB.
        """
        return blockwise_cross_entropy(states_MD, self.weight_VD, targets_M, self.softcap, block=block)


def blockwise_cross_entropy(
    states_MD: Tensor,
    weight_VD: Tensor,
    targets_M: Tensor,
    softcap: float | None,
    added_V: Tensor | None = None,
    block: int | None = None,
) -> Tensor:
    """Mean cross-entropy of `softmax(capped(weight_VD @ state) + added_V)`, block by block; `added_V` is constant."""
    block = block or block_tokens(weight_VD)
    loss: Tensor = _BlockwiseCrossEntropy.apply(states_MD, weight_VD, targets_M, softcap, block, added_V)  # type: ignore[no-untyped-call]
    return loss


def block_tokens(weight_VD: Tensor) -> int:
    """The number of tokens whose logits are in memory at a time."""
    return max(1, _BLOCK_VALUES // weight_VD.shape[0])


def load_head(backbone: Backbone, path: str | Path, task: str = "masked_next_token") -> LanguageModelHead:
    """The head of a backbone that was loaded from `path`; `task` names who needs it in the complaint.

    Raises:
        InputError: the base is an encoder; or its head is not tied to the embeddings, and the folder has none.
    """
    refuse_encoder(backbone, task)
    softcap = getattr(backbone.config, "final_logit_softcapping", None)
    embedding: Tensor = backbone.model.get_input_embeddings().weight
    if getattr(backbone.config, "tie_word_embeddings", True):
        return LanguageModelHead(embedding, softcap)
    weight_VD = _read_head(Path(path), task).to(embedding.device, embedding.dtype)
    return LanguageModelHead(weight_VD, softcap)


def refuse_encoder(backbone: Backbone, task: str) -> None:
    """Refuse a base that attends both ways already, for a task that teaches it to.

    Raises:
        InputError: one line that names the task.
    """
    if backbone.architecture.causal is None:
        raise InputError(
            f"model.base: {task} turns decoders into encoders, and this base is already an encoder; remove the stage"
        )


def _read_head(folder: Path, task: str) -> Tensor:
    """`lm_head.weight`, with any prefix, from the safetensors files of a model folder."""
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names: dict[str, str] = load_foreign_json(index)["weight_map"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"model.base: {index} is damaged ({error}); download it again") from error
        files = [folder / file for name, file in names.items() if name.endswith("lm_head.weight")]
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118  # not a mapping
                    if name.endswith("lm_head.weight"):
                        weight: Tensor = tensors.get_tensor(name)
                        return weight
        except (OSError, SafetensorError) as error:
            raise InputError(f"model.base: {file} cannot be read: {' '.join(str(error).split())[:200]}") from error
    raise InputError(
        f"model.base: {folder} has no language-model head (lm_head.weight), which the task {task} needs; "
        "leave the stage out, or take the base's language model"
    )


class _BlockwiseCrossEntropy(torch.autograd.Function):
    """Computes loss and gradients block by block."""

    @staticmethod
    def forward(
        ctx: Any,
        states_MD: Tensor,
        weight_VD: Tensor,
        targets_M: Tensor,
        softcap: float | None,
        block: int,
        added_V: Tensor | None,
    ) -> Tensor:
        wide = torch.promote_types(states_MD.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=states_MD.device)
        needs_states, needs_weight = ctx.needs_input_grad[:2]
        states_gradient_MD = torch.empty_like(states_MD) if needs_states else None
        weight_gradient_VD = torch.zeros_like(weight_VD, dtype=wide) if needs_weight else None
        count = len(targets_M)
        for start in range(0, count, block):
            rows = slice(start, start + block)
            states_BD, targets_B = states_MD[rows], targets_M[rows]
            raw_BV = (states_BD @ weight_VD.T).to(wide)
            logits_BV = _capped(raw_BV, softcap)
            scores_BV = logits_BV if added_V is None else logits_BV + added_V.to(wide)
            total += functional.cross_entropy(scores_BV, targets_B, reduction="sum")
            if states_gradient_MD is None and weight_gradient_VD is None:
                continue
            gradient_BV = torch.softmax(scores_BV, dim=-1)
            gradient_BV[torch.arange(len(targets_B), device=targets_B.device), targets_B] -= 1.0
            if softcap is not None:
                gradient_BV *= 1.0 - (logits_BV / softcap).square()  # derivative of c * tanh(x / c)
            gradient_BV = (gradient_BV / count).to(weight_VD.dtype)
            if states_gradient_MD is not None:
                states_gradient_MD[rows] = gradient_BV @ weight_VD
            if weight_gradient_VD is not None:
                weight_gradient_VD += gradient_BV.T @ states_BD
        ctx.save_for_backward(states_gradient_MD, weight_gradient_VD)
        ctx.weight_dtype = weight_VD.dtype
        return total / count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        (upstream,) = gradients
        states_gradient_MD, weight_gradient_VD = ctx.saved_tensors
        return (
            None if states_gradient_MD is None else states_gradient_MD * upstream.to(states_gradient_MD.dtype),
            None if weight_gradient_VD is None else (weight_gradient_VD * upstream).to(ctx.weight_dtype),
            None,
            None,
            None,
            None,
        )


def _capped(logits: Tensor, softcap: float | None) -> Tensor:
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
