"""A trained decoder in use: vectors of one encoder to texts.

Shapes: N vectors, d their dimensions, R rows, V vocabulary.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.inversion.generate import Written, write_by_beams, write_by_nucleus, write_greedily
from gemma4vec.inversion.next_token import CachedNextToken, Forbidden, text_of
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.model.inverter.decoder_folder import OpenDecoder, find_decoder, open_decoder, read_facts
from gemma4vec.model.inverter.frame import soft_tokens
from gemma4vec.model.inverter.identity import encoder_identity
from gemma4vec.model.packing.embedding_overrides import EmbeddingOverrides
from gemma4vec.text.text_embedder import TextEmbedder
from gemma4vec.training.writing.kept_decoder import open_kept_decoder

# Rows that are written at the same time: their logits take 1 MB each with Gemma's vocabulary.
_ROWS = 64

Vectors = NDArray[np.float32]


class VectorDecoder:
    """Writes texts from unit vectors `[N, d]`; what it writes from a vector does not depend on the others."""

    def __init__(self, parts: OpenDecoder):
        self.parts, self.facts = parts, parts.facts
        self.forbid = Forbidden(parts, parts.frame.end_id)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        encoder: TextEmbedder,
        *,
        role: Literal["query", "document"] | None = None,
        device: str | None = None,
        dtype: str | None = None,
        step: int | None = None,
    ) -> "VectorDecoder":
        """Open the decoder of an encoder.

        Args:
            folder: its folder, or its run's.
            encoder: the model whose vectors are turned into texts.
            role: whose prompt the vectors' texts had; None: the decoder's.
            device: device of the weights; None: the best one here.
            dtype: "fp32", "bf16" or None for what is fast here.
            step: open it as it was after this step of its training; None: as it is.

        Raises:
            InputError: there is no decoder, it is of another encoder, width or role, or its run did not keep its
                weights after `step`.
        """
        path = find_decoder(folder)
        check_encoder(path, encoder, role)
        where = device or choose_device().name
        wanted = choose_dtype(where, dtype or "auto").dtype
        if step is not None:
            return cls(open_kept_decoder(path, step, dtype=wanted, device=where))
        return cls(open_decoder(path, dtype=wanted, device=where))

    def greedy(self, vectors_Nd: Vectors) -> list[Written]:
        """Of each vector the text of the likeliest tokens."""
        return [
            one
            for part in self._parts(vectors_Nd, 1)
            for one in write_greedily(self.next_token(part), len(part), **self._ends())
        ]

    def nucleus(
        self,
        vectors_Nd: Vectors,
        n: int,
        *,
        temperature: float = 0.7,
        top_p: float = 0.95,
        seed: int = 0,
        first: int = 0,
    ) -> list[list[Written]]:
        """`n` sampled texts of each vector; seed, vector's number (from `first`) and text's number decide the draws."""
        written: list[Written] = []
        limit, number = self.facts.text_tokens, 0
        for part in self._parts(vectors_Nd, n):
            draws = []
            for vector in range(number, number + len(part)):
                draws += [np.random.default_rng([seed, first + vector, text]).random(limit) for text in range(n)]
            number += len(part)
            rows_Rd = np.repeat(part, n, axis=0)
            written += write_by_nucleus(
                self.next_token(rows_Rd),
                np.stack(draws),
                end_id=self.parts.frame.end_id,
                temperature=temperature,
                top_p=top_p,
            )
        return [written[start : start + n] for start in range(0, len(written), n)]

    def beams(self, vectors_Nd: Vectors, width: int) -> list[list[Written]]:
        """The `width` likeliest texts of each vector that beam search finds, likeliest first."""
        return [
            one
            for part in self._parts(vectors_Nd, width)
            for one in write_by_beams(self.next_token(part), len(part), width, **self._ends())
        ]

    def text(self, written: Written) -> str:
        """The text of its tokens, as the tokenizer writes it."""
        return text_of(self.parts, written.ids)

    def next_token(self, vectors_Rd: Vectors) -> CachedNextToken:
        """Scores of texts that grow from these vectors, one row each."""
        frame, rows = self.parts.frame, len(vectors_Rd)
        columns = len(frame.before)

        def soft() -> EmbeddingOverrides:
            cells_RP = torch.arange(rows)[:, None] * columns + torch.arange(len(frame.opening), columns)
            return soft_tokens(cells_RP.flatten(), prefix_of(self.parts, vectors_Rd))

        return CachedNextToken(self.parts, frame.before, rows, self.forbid, soft)

    def _ends(self) -> dict[str, int]:
        return {"end_id": self.parts.frame.end_id, "limit": self.facts.text_tokens}

    def _parts(self, vectors_Nd: Vectors, each: int) -> Iterator[Vectors]:
        """Vectors in parts of about `_ROWS` rows, `each` of them for one vector."""
        if vectors_Nd.ndim != 2 or vectors_Nd.shape[1] != self.facts.dimension:
            raise InputError(
                f"vectors of shape {vectors_Nd.shape}, the decoder reads [N, {self.facts.dimension}]; give vectors of "
                f"{self.facts.encoder_name}"
            )
        step = max(1, _ROWS // each)
        for start in range(0, len(vectors_Nd), step):
            yield vectors_Nd[start : start + step]


@torch.no_grad()
def prefix_of(parts: OpenDecoder, vectors_Rd: Vectors) -> Tensor:
    """Soft tokens `[R, P, D]` of vectors."""
    size = parts.prefix.size
    soft_RPD: Tensor = parts.prefix(torch.from_numpy(np.ascontiguousarray(vectors_Rd)).to(size.device, size.dtype))
    return soft_RPD


def check_encoder(folder: Path, encoder: TextEmbedder, role: str | None) -> None:
    """Refuse a decoder that was trained on other vectors.

    Raises:
        InputError: one line: width, role or encoder differ.
    """
    facts = read_facts(folder)
    if encoder.dimension != facts.dimension:
        raise InputError(
            f"--decoder: {folder} reads vectors of {facts.dimension} dimensions, {encoder.name} makes "
            f"{encoder.dimension}; take the decoder of this model"
        )
    if encoder_identity(encoder) != facts.encoder:
        raise InputError(
            f"--decoder: {folder} was trained on vectors of {facts.encoder_name} ({facts.encoder}), not of this "
            f"{encoder.name} ({encoder_identity(encoder)}); train one for it with the task vector_to_text"
        )
    if role is not None and role != facts.role:
        raise InputError(
            f"--decoder: {folder} was trained on vectors of the role {facts.role}, not {role}; their prompts differ"
        )
