"""Groups of near sections, so that a batch has sections that are easily taken for each other.

The other texts of a batch are a row's negatives; near ones teach more than any (Qu et al. 2021, arXiv:2010.08191;
Hofstätter et al. 2021, TAS-Balanced, arXiv:2104.06967).
"""

from collections.abc import Sequence

import numpy as np

from gemma4vec.data.documents.section import Section
from gemma4vec.data.pycode.split import sort_by_hash
from gemma4vec.retrieval.bm25 import BM25Index
from gemma4vec.retrieval.tokenize import choose_tokenizer

GROUP = 16
READ = 600  # characters of a section by which its neighbors are found


def group_near(sections: Sequence[Section], size: int = GROUP) -> list[int]:
    """The number of each section's group. Groups have `size` sections, the last ones fewer.

    In the order of the hashes of their ids, each section that is in no group takes the `size - 1` best by BM25 of those
    left. Parts of one section are never in one group: they answer the same queries.
    """
    if not sections:
        return []
    texts = [f"{section.title or ''} {section.text}" for section in sections]
    index = BM25Index.build(texts, choose_tokenizer(texts))
    place_of = {section.id: place for place, section in enumerate(sections)}
    free = np.ones(len(sections), dtype=bool)
    groups = np.full(len(sections), -1, dtype=np.int64)
    number = 0
    for key in sort_by_hash(place_of):
        first = place_of[key]
        if not free[first]:
            continue
        scores_M = np.where(free, index.scores(texts[first][:READ]), -1.0)
        scores_M[first] = np.inf
        units: set[str] = set()
        for place in np.argsort(-scores_M, kind="stable").tolist():
            if not free[place] or len(units) == size:
                break
            if sections[place].unit not in units:
                units.add(sections[place].unit)
                groups[place], free[place] = number, False
        number += 1
    return groups.tolist()
