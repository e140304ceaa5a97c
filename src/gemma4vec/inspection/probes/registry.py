"""The registry of probes: each makes counterfactual texts from a suite's own, and says which of them are compared.

A case is a number of named pairs (query, text) that differ in one thing. A probe is a function with the decorator
`probe` in a file of its own, a line in `PROBES` of `run_probes.py`, and a case in `tests/inspection/probes/`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.inspection.probes.evidence import Evidence, find_evidence
from gemma4vec.inspection.probes.measured import Measure, Scores
from gemma4vec.inspection.token_counts import TokenCounter
from gemma4vec.retrieval.tokenize import WordTokenizer
from gemma4vec.text.prompts import Document

MOST = 150  # cases of a probe
LEAST = 20
Case = Mapping[str, tuple[str, Document]]
Mend = Literal["setting", "data"]


@dataclass(frozen=True)
class Material:
    """What probes are made from.

    Attributes:
        rows: places of the queries that may be used: of the open half.
        tokenize: BM25's tokens.
        counter: tokens as the model reads them; None for a model without a known limit.
        seed: of orders, foreign sentences and replacements.
    """

    suite: RetrievalSuite
    rows: Sequence[int]
    tokenize: WordTokenizer
    counter: TokenCounter | None
    seed: int

    def generator(self, name: str) -> np.random.Generator:
        """A probe's own random numbers."""
        return np.random.default_rng([self.seed, *name.encode()])

    def evidence(self) -> list[tuple[str, Evidence]]:
        """(query, evidence) of each query whose right documents share a word with it."""
        place = {key: index for index, key in enumerate(self.suite.corpus_ids)}
        found = []
        for row in self.rows:
            judged = self.suite.qrels[self.suite.query_ids[row]]
            known = [key for key, grade in sorted(judged.items()) if grade >= 1 and key in place]
            right = [self.suite.corpus[place[key]] for key in known]
            one = find_evidence(self.suite.queries[row], right, self.tokenize)
            if one is not None:
                found.append((self.suite.queries[row], one))
        return found

    def fits(self, *documents: Document) -> bool:
        """Whether the model reads these documents whole."""
        if self.counter is None:
            return True
        return max(self.counter.count(documents)) <= self.counter.limit


@dataclass(frozen=True)
class Probe:
    """One probe.

    Attributes:
        words: what differs.
        mend: what mends it: a setting, or other training data.
        source: the paper.
        cases: makes the cases.
        measures: from the scores of each named pair by model and control, [n] each, and a seed.
    """

    name: str
    words: str
    mend: Mend
    source: str
    cases: Callable[[Material], list[Case]]
    measures: Callable[[Scores, Scores, int], list[Measure]]
