"""What writes a text for a vector: a trained decoder, or the nearest query of a log.

Shapes: K vectors, L texts of a log, d dimensions.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.inversion.candidates import clean
from gemma4vec.inversion.decoder import VectorDecoder
from gemma4vec.inversion.held_out import normalized
from gemma4vec.model.inverter.decoder_folder import stored_texts
from gemma4vec.retrieval.exact import search

Vectors = NDArray[np.float32]


class Writer(Protocol):
    """Writes texts for unit vectors of queries."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    def write(self, vectors_Kd: Vectors) -> list[str]:
        """One text for each vector."""

    def write_several(self, vectors_Kd: Vectors, n: int, seed: int) -> list[list[str]]:
        """`n` texts for each vector; some may be equal."""

    def is_known(self, text: str) -> bool:
        """Whether it is one of the texts that the writer has seen."""

    def own_texts(self) -> "LogWriter | None":
        """The texts that it learned from, with their vectors; None: they are not at hand."""


class DecoderWriter:
    """A trained decoder (task `vector_to_text`)."""

    def __init__(self, decoder: VectorDecoder, known: Sequence[str] = ()) -> None:
        """`known`: texts that it may have seen, beside the training texts that are stored with it.

        Raises:
            InputError: it writes documents.
        """
        if decoder.facts.role != "query":
            raise InputError(
                "--decoder: it learned from vectors of documents; fan-out wants one of queries (role: query)"
            )
        self._decoder = decoder
        self._texts, self._vectors_Ld = stored_texts(decoder.parts.folder, decoder.facts)
        self._known = {normalized(text) for text in (*known, *self._texts)}
        self.name = "decoder"

    def write(self, vectors_Kd: Vectors) -> list[str]:
        """The likeliest text of each vector."""
        return [clean(self._decoder.text(one))[0] for one in self._decoder.greedy(vectors_Kd)]

    def write_several(self, vectors_Kd: Vectors, n: int, seed: int) -> list[list[str]]:
        """Sampled texts of each vector."""
        found = self._decoder.nucleus(vectors_Kd, n, seed=seed)
        return [[clean(self._decoder.text(one))[0] for one in several] for several in found]

    def is_known(self, text: str) -> bool:
        """Whether the text is among its training texts, or was named as one that it may have seen."""
        return normalized(text) in self._known

    def own_texts(self) -> "LogWriter | None":
        """Its stored training texts."""
        return LogWriter(self._texts, self._vectors_Ld) if self._texts else None


class LogWriter:
    """The nearest query of a log: it writes nothing new, and is what a decoder has to be better than."""

    def __init__(self, texts: Sequence[str], vectors_Ld: Vectors) -> None:
        """`texts` with their unit vectors as queries.

        Raises:
            InputError: there is no text.
        """
        if not texts:
            raise InputError("--log: there is no query in it; give a file with a query a line, or rows")
        self._texts, self._vectors_Ld = list(texts), vectors_Ld
        self.name = "nearest query of the log"

    def write(self, vectors_Kd: Vectors) -> list[str]:
        """The nearest query of each vector."""
        return [several[0] for several in self.nearest(vectors_Kd, 1)]

    def write_several(self, vectors_Kd: Vectors, n: int, seed: int) -> list[list[str]]:
        """The `n` nearest queries of each vector; there is no chance in them."""
        return self.nearest(vectors_Kd, n)

    def nearest(self, vectors_Kd: Vectors, n: int) -> list[list[str]]:
        """The `n` nearest queries of each vector, nearest first."""
        return [[text for text, _ in several] for several in self.near(vectors_Kd, n)]

    def near(self, vectors_Kd: Vectors, n: int) -> list[list[tuple[str, float]]]:
        """The `n` nearest queries of each vector with their cosines, nearest first."""
        found = search(vectors_Kd, self._vectors_Ld, min(n, len(self._texts)))
        return [
            [(self._texts[place], float(score)) for place, score in zip(*row, strict=True) if place >= 0]
            for row in zip(found.indices, found.scores, strict=True)
        ]

    def is_known(self, text: str) -> bool:
        """All its texts are."""
        return True

    def own_texts(self) -> "LogWriter | None":
        """Itself."""
        return self
