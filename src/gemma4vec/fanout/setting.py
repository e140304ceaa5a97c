"""What fan-out works on: a suite and a model, all vectors, and what writes texts.

Shapes: Q queries, M documents, d dimensions, K places.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.ranking import Ranking
from gemma4vec.evaluation.scoring.vector_ranking import rank_vectors, settle
from gemma4vec.fanout.keep import Gates
from gemma4vec.fanout.paraphrase import Paraphraser
from gemma4vec.fanout.suggester import Suggester, title_of
from gemma4vec.fanout.walk import Vectors, mean_direction
from gemma4vec.fanout.writers import LogWriter, Writer
from gemma4vec.retrieval.bm25 import BM25Index
from gemma4vec.retrieval.tokenize import choose_tokenizer
from gemma4vec.text.text_embedder import TextEmbedder

Ints = NDArray[np.int64]
Report = Callable[[str, int, int], None]  # what, done, in all
DEPTH = 100


@dataclass(frozen=True)
class Choices:
    """Numbers that a person may choose.

    Attributes:
        n: most suggestions a query, of every method.
        step_degrees: length of a step on the sphere.
        points: most points of a walk; a longer one has longer steps.
        feedback: first hits whose mean vector is the target of a walk without labels.
        weight: of the suggestions in the fused ranking.
        seed: of random directions and of sampled texts.
        gates: what a text must be to be kept.
    """

    n: int = 8
    step_degrees: float = 4.0
    points: int = 20
    feedback: int = 3
    weight: float = 0.3
    seed: int = 0
    gates: Gates = field(default_factory=Gates)

    def check(self) -> None:
        """Refuse numbers that cannot be.

        Raises:
            InputError: one of them is out of its range.
        """
        for name, value, least in (("--n", self.n, 1), ("--feedback", self.feedback, 1), ("--points", self.points, 1)):
            if value < least:
                raise InputError(f"{name} {value}: give at least {least}")
        if not 0 <= self.weight <= 10:
            raise InputError(f"--weight {self.weight}: give 0 to 10")
        if not -1 <= self.gates.faithful <= 1 or not 0 <= self.gates.diverse <= 1:
            raise InputError("--faithful is a cosine, -1 to 1; --diverse a share, 0 to 1")


@dataclass(frozen=True)
class Setting:
    """A suite with its vectors.

    Attributes:
        suite: queries, documents, judgments.
        embedder: the model.
        queries_Qd, documents_Md: its unit vectors.
        writer: texts for vectors.
        log: a log of queries, for the row of nearest ones; None: there is none.
        paraphraser: a language model that rewords queries; None: there is none.
        choices: numbers.
        suggester: a trained suggester; None: there is none.
    """

    suite: RetrievalSuite
    embedder: TextEmbedder
    queries_Qd: Vectors
    documents_Md: Vectors
    writer: Writer
    log: LogWriter | None = None
    choices: Choices = field(default_factory=Choices)
    paraphraser: Paraphraser | None = None
    suggester: Suggester | None = None

    @cached_property
    def texts(self) -> list[str]:
        """Documents with their titles in front."""
        return [f"{title} {text}" if title else text for text, title in self.suite.corpus]

    @cached_property
    def bm25(self) -> BM25Index:
        """The word index."""
        return BM25Index.build(self.texts, tokenize=choose_tokenizer(self.texts, code=self.suite.code))

    @cached_property
    def own_rankings(self) -> Ints:
        """The queries' own rankings."""
        return self.rank(self.queries_Qd, range(len(self.queries_Qd)))

    def titles(self, row: int, most: int) -> list[str]:
        """Titles of a query's first hits: what a suggester reads beside the query."""
        places = [place for place in self.own_rankings[row, :most].tolist() if place >= 0]
        return [title_of(self.suite.corpus[place]) for place in places]

    @cached_property
    def gold(self) -> list[list[int]]:
        """Of each query the documents that are judged relevant, best grade first."""
        place = {key: number for number, key in enumerate(self.suite.corpus_ids)}
        return [
            [place[key] for key, grade in sorted(self.suite.qrels[query].items(), key=lambda one: -one[1]) if grade > 0]
            for query in self.suite.query_ids
        ]

    @cached_property
    def centroids(self) -> Vectors:
        """Of each query the mean vector of its first hits, of unit length."""
        first_QF = self.own_rankings[:, : self.choices.feedback]
        return np.stack([mean_direction(self.documents_Md[row[row >= 0]]) for row in first_QF])

    def rank(self, vectors_Nd: Vectors, rows: Sequence[int] | range) -> Ints:
        """Documents `[N, 100]` by cosine; `rows` are the queries that the vectors belong to, whose own text is left out
        where the suite says so."""
        return np.asarray(rank_vectors(self.suite, vectors_Nd, self.documents_Md, DEPTH, rows).indices)

    def without_own(self, indices_NK: Ints, scores_NK: NDArray[np.floating], rows: Sequence[int] | range) -> Ints:
        """Rankings of at most 100 places, without the query's own document where the suite leaves it out."""
        ranking = Ranking(indices_NK, np.asarray(scores_NK, np.float32))
        return np.asarray(settle(self.suite, ranking, DEPTH, rows).indices)
