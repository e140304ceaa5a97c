"""Beginnings that documents have in common, such as their prompt, so that each is computed once.

Under causal attention the state of a token depends on the tokens up to it and on nothing behind it. All queries of a
batch begin with one prompt: the states of its tokens are the same in each of them, and so are the keys and values that
the rest of each query attends to. So a shared beginning stands once in a rectangle, every row may look at it, and what
follows stands as if the beginning were in front of it. Values and gradients are those of whole documents.

Shapes: N documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

# Tokens that are compared to tell whether two documents may begin alike; a shorter beginning is not worth sharing.
_SHORTEST = 4
# Longest beginning looked for: prompts, not texts that happen to be alike.
_LONGEST = 128


@dataclass(frozen=True)
class SharedPrefix:
    """What documents begin with.

    Attributes:
        tokens: the token ids of each shared beginning.
        of_N: for each document the number of its beginning, -1 where it shares none; empty: no document does.
    """

    tokens: tuple[tuple[int, ...], ...] = ()
    of_N: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Tokens of all beginnings together."""
        return sum(map(len, self.tokens))

    @property
    def longest(self) -> int:
        """Tokens of the longest one."""
        return max(map(len, self.tokens), default=0)

    def of(self, document: int) -> int:
        """Number of the document's beginning, or -1."""
        return self.of_N[document] if self.of_N else -1

    def length(self, document: int) -> int:
        """How many tokens of the document are shared."""
        number = self.of(document)
        return len(self.tokens[number]) if number >= 0 else 0

    def only_of(self, documents: Sequence[int]) -> "SharedPrefix":
        """Without the beginnings that none of these documents has."""
        kept = sorted({self.of(document) for document in documents} - {-1})
        numbers = {-1: -1} | {old: new for new, old in enumerate(kept)}
        of_N = tuple(numbers.get(number, -1) for number in self.of_N)
        return SharedPrefix(tuple(self.tokens[number] for number in kept), of_N)


NONE = SharedPrefix()


def common_prefixes(documents: Sequence[Sequence[int]], most: int) -> SharedPrefix:
    """Find beginnings that save the most tokens, of at most `most` tokens together.

    Documents with the same first tokens make a group; it shares the longest beginning that all of them have. The last
    token of a document is never shared: each has a state of its own to read out.
    """

    def first(number: int) -> tuple[int, ...]:
        return tuple(documents[number][:_SHORTEST])

    order = sorted((i for i in range(len(documents)) if len(documents[i]) > _SHORTEST), key=first)
    groups = [list(members) for _, members in groupby(order, key=first)]
    found = [(members, _common(documents, members)) for members in groups if len(members) > 1]
    found.sort(key=lambda one: (-(len(one[0]) - 1) * len(one[1]), one[1]))
    tokens: list[tuple[int, ...]] = []
    of_N = [-1] * len(documents)
    for members, beginning in found:
        if sum(map(len, tokens)) + len(beginning) <= most:
            for member in members:
                of_N[member] = len(tokens)
            tokens.append(beginning)
    return SharedPrefix(tuple(tokens), tuple(of_N)) if tokens else NONE


def _common(documents: Sequence[Sequence[int]], members: Sequence[int]) -> tuple[int, ...]:
    """The longest beginning of all members that leaves each a token."""
    # Of sequences in order, the first and the last differ the soonest.
    heads = [tuple(documents[member][: min(_LONGEST, len(documents[member]) - 1)]) for member in members]
    low, high = min(heads), max(heads)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length]
