"""What a runtime is asked and what it answers, also across a process boundary.

Shapes: N texts, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Role = Literal["query", "document"]


@dataclass(frozen=True)
class RoleText:
    """A text with its part in a search; the prompt is the role's."""

    role: Role
    text: str


class RefusedTextError(Exception):
    """The runtime refuses a text, such as one over its limit."""


class Runtime(Protocol):
    """A program that runs an exported model."""

    @property
    def version(self) -> str:
        """Name and version of the program."""

    def encode(self, texts: Sequence[RoleText]) -> Vectors:
        """Vectors `[N, D]` of texts that the program gets in one call.

        Raises:
            RefusedTextError: it refuses one of them.
        """

    def tokens(self, text: RoleText) -> list[int] | None:
        """The token ids that the program reads of a text; None: it does not say."""


@dataclass(frozen=True)
class Answer:
    """What a runtime returned for a list of calls.

    Attributes:
        version: name and version of the program.
        vectors_ND: of the texts of all calls, one after the other; rows of refused texts are NaN.
        refused: index among these -> the program's reason.
        tokens: ids of each text that was asked for them; None: the program does not say.
    """

    version: str
    vectors_ND: Vectors
    refused: dict[int, str]
    tokens: list[list[int] | None]


def answer(runtime: Runtime, calls: Sequence[Sequence[RoleText]], tokens_of: Sequence[RoleText]) -> Answer:
    """Make the calls. If one is refused, its texts are sent one by one to find the refused ones.

    Raises:
        ValueError: vectors of different lengths.
    """
    vectors: list[Vectors | None] = []
    refused: dict[int, str] = {}
    for call in calls:
        try:
            vectors.extend(runtime.encode(call))
            continue
        except RefusedTextError as error:
            if len(call) == 1:
                refused[len(vectors)] = str(error)
                vectors.append(None)
                continue
        for text in call:
            try:
                vectors.extend(runtime.encode([text]))
            except RefusedTextError as error:
                refused[len(vectors)] = str(error)
                vectors.append(None)
    width = next((len(vector) for vector in vectors if vector is not None), 0)
    missing = np.full(width, np.nan, dtype=np.float32)
    vectors_ND = np.stack([missing if vector is None else vector for vector in vectors])
    return Answer(runtime.version, vectors_ND.astype(np.float32), refused, [runtime.tokens(text) for text in tokens_of])
