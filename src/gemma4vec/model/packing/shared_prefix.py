"""Prefixes that documents share, such as their prompt, so that each is computed once.

Under causal attention a token's state does not depend on later tokens. If all queries of a batch start with one prompt,
the states, keys and values of its tokens are the same in each of them. So a shared prefix is stored once in a
rectangle, every row may attend to it, and positions continue after it. Values and gradients equal those of whole
documents.

Shapes: N documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

# Documents are grouped by this many first tokens; a shorter prefix is not worth sharing.
_SHORTEST = 4
# Longest prefix that is searched for: prompts, not texts that happen to be alike.
_LONGEST = 128


@dataclass(frozen=True)
class SharedPrefixes:
    """The shared prefixes of a list of documents.

    Attributes:
        tokens: token ids of each prefix.
        of_N: number of each document's prefix, -1: it has none; empty: no document has one.
    """

    tokens: tuple[tuple[int, ...], ...] = ()
    of_N: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of tokens of all prefixes."""
        return sum(map(len, self.tokens))

    @property
    def longest(self) -> int:
        """Number of tokens of the longest prefix."""
        return max(map(len, self.tokens), default=0)

    def of(self, document: int) -> int:
        """Number of the document's prefix, or -1."""
        return self.of_N[document] if self.of_N else -1

    def length(self, document: int) -> int:
        """Number of shared tokens of the document."""
        number = self.of(document)
        return len(self.tokens[number]) if number >= 0 else 0

    def only_of(self, documents: Sequence[int]) -> "SharedPrefixes":
        """The prefixes of these documents alone."""
        kept = sorted({self.of(document) for document in documents} - {-1})
        numbers = {-1: -1} | {old: new for new, old in enumerate(kept)}
        of_N = tuple(numbers.get(number, -1) for number in self.of_N)
        return SharedPrefixes(tuple(self.tokens[number] for number in kept), of_N)


NONE = SharedPrefixes()


def find_shared_prefixes(documents: Sequence[Sequence[int]], most: int) -> SharedPrefixes:
    """Find the prefixes that save the most tokens, at most `most` tokens in total.

    Documents with the same first tokens form a group, which shares their longest common prefix. A document's last token
    is never shared, because readouts need a state of its own.
    """

    def first(number: int) -> tuple[int, ...]:
        return tuple(documents[number][:_SHORTEST])

    order = sorted((i for i in range(len(documents)) if len(documents[i]) > _SHORTEST), key=first)
    groups = [list(members) for _, members in groupby(order, key=first)]
    found = [(members, _common(documents, members)) for members in groups if len(members) > 1]
    found.sort(key=lambda one: (-(len(one[0]) - 1) * len(one[1]), one[1]))
    tokens: list[tuple[int, ...]] = []
    of_N = [-1] * len(documents)
    for members, prefix in found:
        if sum(map(len, tokens)) + len(prefix) <= most:
            for member in members:
                of_N[member] = len(tokens)
            tokens.append(prefix)
    return SharedPrefixes(tuple(tokens), tuple(of_N)) if tokens else NONE


def _common(documents: Sequence[Sequence[int]], members: Sequence[int]) -> tuple[int, ...]:
    """The longest common prefix that leaves each member at least one token."""
    # In sorted order, the first and the last sequence have the shortest common prefix.
    heads = [tuple(documents[member][: min(_LONGEST, len(documents[member]) - 1)]) for member in members]
    low, high = min(heads), max(heads)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length]
