"""Which sections are tested on, where a person has no queries of their own: those of held-out files.

Of near-duplicates only the first is kept, so that no section that is tested on has a near-duplicate in training.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gemma4vec.data.documents.pairs import Pair
from gemma4vec.data.documents.section import Section
from gemma4vec.data.ngrams.word_ngrams import normalize
from gemma4vec.data.pycode.near_duplicates import find_near_pairs, keep_first
from gemma4vec.data.pycode.split import LARGEST_SHARE, MIN_PACKAGES, TEST_SHARE, draw_units

MIN_FILES = MIN_PACKAGES


@dataclass
class DocumentSplit:
    """Places of sections by part, without near-duplicates.

    Attributes:
        test, train: places in the list of sections, in order.
        unit: what is held out as a whole, "file", or "section" where there are too few files.
        held_out: names of what is held out.
    """

    test: list[int] = field(default_factory=list)
    train: list[int] = field(default_factory=list)
    unit: str = "file"
    held_out: list[str] = field(default_factory=list)


def split_documents(
    sections: Sequence[Section], kept: Sequence[int], pairs: Sequence[Pair], *, hold_out: bool
) -> DocumentSplit:
    """Draw files by hash until they have a fifth of the pairs; sections instead, with fewer than 5 files or if one file
    has more than half of the pairs. Without `hold_out` all is for training.

    Args:
        sections: all sections.
        kept: places of those without near-duplicates.
        pairs: of those.
        hold_out: whether there is a test of held-out documents.
    """
    split = DocumentSplit()
    unit: Callable[[Section], str] = lambda section: section.path  # noqa: E731
    drawn: set[str] = set()
    if hold_out:
        sizes = Counter(sections[pair.place].path for pair in pairs)
        if len(sizes) < MIN_FILES or max(sizes.values()) > LARGEST_SHARE * len(pairs):
            split.unit, unit = "section", lambda section: section.unit
            sizes = Counter(sections[pair.place].unit for pair in pairs)
        drawn = draw_units(sizes, TEST_SHARE)
        split.held_out = sorted(drawn)
    for place in kept:
        (split.test if unit(sections[place]) in drawn else split.train).append(place)
    return split


def without_near_duplicates(sections: Sequence[Section]) -> list[int]:
    """Places of sections that are not near-duplicates of an earlier one, by their sets of words."""
    words = [frozenset(normalize(section.text).split()) for section in sections]
    return np.flatnonzero(keep_first(find_near_pairs(words), len(words))).tolist()
