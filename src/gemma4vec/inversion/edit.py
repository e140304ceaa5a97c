"""White-box editing: swap single tokens of a text so that its vector comes nearer to a target.

The encoder is ours, so the gradient of the cosine at its input embeddings says to first order what each swap would
change (Ebrahimi et al. 2018, HotFlip, arXiv:1712.06751). The best proposals are embedded, and one is kept only if the
text that it makes is really nearer: tokenized again, it may have other tokens.

Shapes: T tokens of a text with its prompt, V vocabulary, D width of an embedding, d of a vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.inversion.candidates import Candidate, Role, clean, embed
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.packing.packed_batch import pad
from gemma4vec.text.encodable import encodable
from gemma4vec.text.prompts import Prompted
from gemma4vec.text.text_embedder import TextEmbedder

# Swaps that are embedded in a round.
PROPOSALS = 64
# A smaller rise of the cosine is rounding.
_LEAST_RISE = 1e-6


@dataclass(frozen=True)
class Swap:
    """A proposal: another token at a place of the text."""

    place: int
    token: int
    gain: float


def check_editable(encoder: TextEmbedder) -> Embedder:
    """The encoder, if its gradients can be had.

    Raises:
        InputError: another library runs it, or its readout reads more than the text.
    """
    if not isinstance(encoder, Embedder):
        raise InputError(f"--edit: {encoder.name} is run by another library, which gives no gradients; use --edit 0")
    prompted = Prompted("", "one text")
    if list(encoder.read([prompted], 32)[0].ids) != list(encoder.tokenizer.encode([prompted], 32)[0].ids):
        raise InputError(
            f"--edit: the readout {encoder.encoder.readout.name} reads more than the text itself; use --edit 0"
        )
    return encoder


class Editor:
    """Edits texts by the gradients of one encoder.

    Raises:
        InputError: the encoder's gradients cannot be had (`check_editable`).
    """

    def __init__(self, encoder: TextEmbedder, role: Role):
        self.encoder, self.role = check_editable(encoder), role
        tokenizer: Any = self.encoder.tokenizer.hf_tokenizer
        known = {int(one) for one in tokenizer.get_vocab().values()} - {int(one) for one in tokenizer.all_special_ids}
        weight_VD = _embedding(self.encoder).weight
        excluded = [token for token in range(len(weight_VD)) if token not in known]
        self._excluded = torch.tensor(excluded, dtype=torch.long, device=weight_VD.device)
        self._surface = _surfaces(tokenizer)

    def edit(self, target_d: NDArray[np.floating[Any]], start: Candidate, rounds: int) -> Candidate:
        """Improve a text by at most `rounds` swaps, each the best of `PROPOSALS`; its cosine never falls."""
        best = start
        for _ in range(rounds):
            texts = [safe for text in self.proposed_texts(target_d, best.text) if (safe := clean(text)[0])]
            different = [text for text in dict.fromkeys(texts) if text != best.text]
            if not different:
                break
            cosines = embed(self.encoder, self.role, different) @ target_d.astype(np.float32)
            nearest = int(cosines.argmax())
            if float(cosines[nearest]) <= best.cosine + _LEAST_RISE:
                break
            best = replace(best, text=different[nearest], cosine=float(cosines[nearest]), how="edited")
        return best

    def proposed_texts(self, target_d: NDArray[np.floating[Any]], text: str, most: int = PROPOSALS) -> list[str]:
        """The texts of the swaps that the gradient likes best, best first."""
        prompts = self.encoder.prompts
        prompted = prompts.for_query(text) if self.role == "query" else prompts.for_document(text)
        whole, before = encodable(prompted.prompt + prompted.text), len(encodable(prompted.prompt))
        tokenizer: Any = self.encoder.tokenizer.hf_tokenizer
        read = tokenizer(whole, return_offsets_mapping=True, truncation=True, max_length=self.encoder.max_tokens)
        spans: Sequence[tuple[int, int]] = read["offset_mapping"]
        places = [place for place, (start, end) in enumerate(spans) if end > max(start, before)]
        found = []
        for swap in self.propose_swaps(prompted, target_d, places, most):
            start, end = spans[swap.place]
            changed = whole[:start] + self._surface(swap.token) + whole[end:]
            if changed.startswith(whole[:before]):  # a token may hold the last space of the prompt
                found.append(changed[before:])
        return found

    def propose_swaps(
        self, prompted: Prompted, target_d: NDArray[np.floating[Any]], places: Sequence[int], most: int
    ) -> list[Swap]:
        """The `most` swaps at these places that raise the cosine most, to first order."""
        if not places:
            return []
        gradient_TD, ids_T = cosine_gradient(self.encoder, prompted, target_d)
        weight_VD = _embedding(self.encoder).weight.detach()
        chosen_K = torch.tensor(list(places), device=gradient_TD.device)
        gradient_KD = gradient_TD[chosen_K].to(weight_VD.dtype)
        own_K1 = (gradient_KD * weight_VD[ids_T[chosen_K]]).sum(dim=1, keepdim=True)
        gains_KV = gradient_KD @ weight_VD.T - own_K1
        gains_KV[:, self._excluded] = -float("inf")
        gains_KV.scatter_(1, ids_T[chosen_K][:, None], -float("inf"))
        values, flat = gains_KV.flatten().float().topk(min(most, gains_KV.numel()))
        vocabulary = len(weight_VD)
        return [
            Swap(places[at // vocabulary], at % vocabulary, gain)
            for gain, at in zip(values.tolist(), flat.tolist(), strict=True)
            if gain > -float("inf")
        ]


def cosine_gradient(
    encoder: Embedder, prompted: Prompted, target_d: NDArray[np.floating[Any]]
) -> tuple[Tensor, Tensor]:
    """(gradient `[T, D]` of the cosine at the embedding layer's output, token ids `[T]`) of one text."""
    tokens = encoder.read([prompted], encoder.max_tokens)
    layouts = pad(tokens, max(1, tokens[0].length), encoder.tokenizer.padding_id)
    entered: list[Tensor] = []

    def keep(_: Any, __: Any, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        entered.append(leaf)
        return leaf

    module = encoder.encoder
    training = module.training
    module.eval()
    handle = _embedding(encoder).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            (vector_d,) = module(layouts)
            cosine = (vector_d * torch.from_numpy(np.asarray(target_d)).to(vector_d)).sum()
            (gradient_RCD,) = torch.autograd.grad(cosine, entered[:1])
    finally:
        handle.remove()
        module.train(training)
    cells_T = layouts[0].cells_T.to(gradient_RCD.device)
    ids_T = layouts[0].input_ids_RC.to(gradient_RCD.device).flatten()[cells_T]
    return gradient_RCD.flatten(0, 1)[cells_T], ids_T


def _embedding(encoder: Embedder) -> Any:
    return encoder.encoder.backbone.model.get_input_embeddings()


def _surfaces(tokenizer: Any) -> Callable[[int], str]:
    """Token to its characters inside a text: some tokenizers drop a text's first space."""
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    alone = tokenizer.decode(anchor, clean_up_tokenization_spaces=False)

    def surface(token: int) -> str:
        whole = str(tokenizer.decode([*anchor, token], clean_up_tokenization_spaces=False))
        return whole[len(alone) :]

    return surface
