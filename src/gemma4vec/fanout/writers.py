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


class DecoderWriter:
    """A trained decoder (task `vector_to_text`)."""

    def __init__(self, decoder: VectorDecoder, known: Sequence[str] = ()) -> None:
        """`known`: its training texts, if they are at hand.

        Raises:
            InputError: it writes documents.
        """
        if decoder.facts.role != "query":
            raise InputError(
                "--decoder: it learned from vectors of documents; fan-out wants one of queries (role: query)"
            )
        self._decoder, self._known = decoder, {normalized(text) for text in known}
        self.name = "decoder"

    def write(self, vectors_Kd: Vectors) -> list[str]:
        """The likeliest text of each vector."""
        return [clean(self._decoder.text(one))[0] for one in self._decoder.greedy(vectors_Kd)]

    def write_several(self, vectors_Kd: Vectors, n: int, seed: int) -> list[list[str]]:
        """Sampled texts of each vector."""
        found = self._decoder.nucleus(vectors_Kd, n, seed=seed)
        return [[clean(self._decoder.text(one))[0] for one in several] for several in found]

    def is_known(self, text: str) -> bool:
        """Whether the text is among those that were named as its training texts."""
        return normalized(text) in self._known


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
        from gemma4vec.retrieval.exact import search

        found = search(vectors_Kd, self._vectors_Ld, min(n, len(self._texts)))
        return [[self._texts[place] for place in row if place >= 0] for row in found.indices]

    def is_known(self, text: str) -> bool:
        """All its texts are."""
        return True
