"""Vectors to texts, block by block: candidates, edits, and the nearest training text beside each.

Shapes: N vectors, d dimensions, M stored training texts.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.inversion.candidates import Candidate, find_candidates
from gemma4vec.inversion.decoder import VectorDecoder
from gemma4vec.inversion.edit import Editor
from gemma4vec.model.inverter.decoder_folder import stored_texts
from gemma4vec.retrieval.exact import search
from gemma4vec.text.text_embedder import TextEmbedder

# Vectors between two reports.
BLOCK = 16

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """How hard to search.

    Attributes:
        n: texts that are written for each vector.
        beams: how many of them beam search finds.
        edit: rounds of swaps of one token each.
        seed: of sampled texts.
    """

    n: int = 16
    beams: int = 0
    edit: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Inverted:
    """What a vector became.

    Attributes:
        text: the best text.
        cosine: of its own vector and the given one.
        how: how it was found.
        cleaned: control characters that were taken out of it.
        nearest: the nearest training text that is stored with the decoder; None: none is.
        nearest_cosine: the cosine of its vector.
    """

    text: str
    cosine: float
    how: str
    cleaned: int
    nearest: str | None
    nearest_cosine: float | None

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


class Inverter:
    """A decoder and its encoder, ready to invert vectors.

    Raises:
        InputError: edits are asked for, and the encoder gives no gradients; the stored texts are damaged.
    """

    def __init__(self, decoder: VectorDecoder, encoder: TextEmbedder, settings: Settings):
        self.decoder, self.encoder, self.settings = decoder, encoder, settings
        self.editor = Editor(encoder, decoder.facts.role) if settings.edit else None
        self.texts, self.vectors_Md = stored_texts(decoder.parts.folder, decoder.facts)

    def blocks(self, vectors_Nd: Vectors) -> Iterator[list[Inverted]]:
        """What the vectors became, in their order, `BLOCK` of them at a time."""
        for start in range(0, len(vectors_Nd), BLOCK):
            part = vectors_Nd[start : start + BLOCK]
            yield self._with_nearest(part, self.best(part, first=start))

    def ranked(self, vectors_Nd: Vectors, first: int = 0) -> list[list[Candidate]]:
        """All texts of each vector before edits, nearest first; `first` is the first one's number among all."""
        settings = self.settings
        return find_candidates(
            self.decoder,
            self.encoder,
            vectors_Nd,
            settings.n,
            beams=settings.beams,
            seed=settings.seed,
            first=first,
        )

    def best(self, vectors_Nd: Vectors, first: int = 0) -> list[Candidate]:
        """The best text of each vector."""
        found = [texts[0] for texts in self.ranked(vectors_Nd, first)]
        if self.editor is None:
            return found
        pairs = zip(vectors_Nd, found, strict=True)
        return [self.editor.edit(target_d, one, self.settings.edit) for target_d, one in pairs]

    def nearest(self, vectors_Nd: Vectors) -> list[tuple[str | None, float | None]]:
        """The nearest training text of each vector that is stored with the decoder, with its cosine."""
        if not self.texts:
            return [(None, None)] * len(vectors_Nd)
        ranked = search(vectors_Nd, self.vectors_Md, 1)
        rows, scores = ranked.indices[:, 0].tolist(), ranked.scores[:, 0].tolist()
        return [(self.texts[row], float(score)) for row, score in zip(rows, scores, strict=True)]

    def _with_nearest(self, vectors_Nd: Vectors, found: list[Candidate]) -> list[Inverted]:
        return [
            Inverted(one.text, one.cosine, one.how, one.cleaned, *beside)
            for one, beside in zip(found, self.nearest(vectors_Nd), strict=True)
        ]
