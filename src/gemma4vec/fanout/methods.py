"""Ways to make suggestions for a query, each with the same number of them.

A method gives texts, which pass the gates, are embedded and search; or it gives rankings of its own. One that looks at
judgments is an oracle: it shows what could be had, never what a system gains.

Shapes: d dimensions, K points.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.vector_ranking import count_to_rank
from gemma4vec.fanout.rm3 import rm3_scores
from gemma4vec.fanout.setting import DEPTH, Ints, Setting
from gemma4vec.fanout.walk import Vectors, angle_between, changes, random_walk, step_angles, way
from gemma4vec.retrieval.top_k import descending_id_rank

Texts = list[list[str]]
Rankings = list[list[Ints]]
LOG, NOISE = "nearest queries of the log", "noise at the walk's angles"
TO_GOLD, TO_HITS = "walk to the gold document", "walk to the first hits' mean"


@dataclass(frozen=True)
class Method:
    """A way to make suggestions.

    Attributes:
        name: for people.
        texts: of each query texts, best first, or None where rankings are made.
        rankings: of each query rankings, or None where texts are made.
        oracle: whether it looks at judgments.
        needs_log: whether it reads a log of queries.
        needs_paraphraser: whether it has a language model reword queries.
        needs_suggester: whether it has a trained suggester write queries.
    """

    name: str
    texts: Callable[[Setting], Texts] | None = None
    rankings: Callable[[Setting], Rankings] | None = None
    oracle: bool = False
    needs_log: bool = False
    needs_paraphraser: bool = False
    needs_suggester: bool = False

    def can_run(self, setting: Setting) -> bool:
        """Whether the setting has what the method reads."""
        needed = [
            (self.needs_log, setting.log),
            (self.needs_paraphraser, setting.paraphraser),
            (self.needs_suggester, setting.suggester),
        ]
        return all(part is not None for needs, part in needed if needs)


def walk_points(setting: Setting, row: int, end_d: Vectors) -> Vectors:
    """Points on the way from a query to a target, the target last; none where both are one point or opposite."""
    choices = setting.choices
    try:
        return way(setting.queries_Qd[row], end_d, choices.step_degrees, choices.points)[1]
    except InputError:
        return np.zeros((0, len(end_d)), dtype=np.float32)


def angles_to(setting: Setting, row: int, end_d: Vectors) -> list[float]:
    """The angles of a walk's points."""
    whole = angle_between(setting.queries_Qd[row], end_d)
    return step_angles(whole, setting.choices.step_degrees, setting.choices.points)


def write_walks(setting: Setting, points: list[Vectors]) -> Texts:
    """What the writer makes of each query's points."""
    counts = [len(one) for one in points]
    written = setting.writer.write(np.concatenate(points)) if sum(counts) else []
    ends = np.cumsum(counts)
    walks = [written[end - count : end] for count, end in zip(counts, ends, strict=True)]
    return [[walk[place] for place in changes(walk)] for walk in walks]


def to_gold(setting: Setting) -> Texts:
    """Texts on the way to the best judged document."""
    empty = np.zeros((0, setting.queries_Qd.shape[1]), dtype=np.float32)
    golds = setting.gold
    ways = [walk_points(setting, row, setting.documents_Md[one[0]]) if one else empty for row, one in enumerate(golds)]
    return write_walks(setting, ways)


def to_hits(setting: Setting) -> Texts:
    """Texts on the way to the mean of the first hits."""
    ways = [walk_points(setting, row, centroid_d) for row, centroid_d in enumerate(setting.centroids)]
    return write_walks(setting, ways)


def noise(setting: Setting) -> Texts:
    """Texts on a way of the gold walk's angles in a random direction: what chance and choice alone give."""
    ways = []
    for row, gold in enumerate(setting.gold):
        end_d = setting.documents_Md[gold[0]] if gold else setting.centroids[row]
        generator = np.random.default_rng([setting.choices.seed, row])
        ways.append(random_walk(setting.queries_Qd[row], angles_to(setting, row, end_d), generator))
    return write_walks(setting, ways)


def nearest_log(setting: Setting) -> Texts:
    """The nearest queries of the log."""
    assert setting.log is not None
    return setting.log.nearest(setting.queries_Qd, 2 * setting.choices.n)


def from_first_hit(setting: Setting) -> Texts:
    """Texts for the first hit's own vector, as doc2query writes queries for a document (Nogueira et al., 2019)."""
    first_Qd = setting.documents_Md[setting.own_rankings[:, 0]]
    return setting.writer.write_several(first_Qd, 2 * setting.choices.n, setting.choices.seed)


def paraphrases(setting: Setting) -> Texts:
    """What a language model makes of the query's words, without a vector."""
    assert setting.paraphraser is not None
    return setting.paraphraser.write(setting.suite.queries, 2 * setting.choices.n, setting.choices.seed)


def suggested(setting: Setting) -> Texts:
    """What a trained suggester writes for the query and the titles of its first hits, without a vector."""
    suggester, choices = setting.suggester, setting.choices
    assert suggester is not None
    most = suggester.facts.reading.titles
    return [
        [one.text for one in suggester.write(query, setting.titles(row, most), 2 * choices.n, seed=choices.seed)]
        for row, query in enumerate(setting.suite.queries)
    ]


def bm25(setting: Setting) -> Rankings:
    """The words' own ranking."""
    rank = descending_id_rank(setting.suite.corpus_ids)
    found = setting.bm25.search(
        setting.suite.queries, min(count_to_rank(setting.suite, DEPTH), len(setting.texts)), descending_id_rank=rank
    )
    rows = setting.without_own(found.indices, found.scores, range(len(setting.suite.queries)))
    return [[row] for row in rows]


def rm3(setting: Setting) -> Rankings:
    """BM25 with the words of its first hits."""
    rank = descending_id_rank(setting.suite.corpus_ids)
    found = []
    for row, query in enumerate(setting.suite.queries):
        scores_M = rm3_scores(setting.bm25, setting.texts, query).astype(np.float32)
        best = setting.bm25.best(scores_M, min(count_to_rank(setting.suite, DEPTH), len(setting.texts)), rank)
        found.append([setting.without_own(best.indices[None], best.scores[None], [row])[0]])
    return found


def feedback_vectors(setting: Setting) -> Rankings:
    """Points on the way to the mean of the first hits, which search without being written: vector feedback."""
    found = []
    for row, centroid_d in enumerate(setting.centroids):
        points_Kd = walk_points(setting, row, centroid_d)
        places = np.unique(np.linspace(0, len(points_Kd) - 1, setting.choices.n).round().astype(int))
        chosen = points_Kd[places] if len(points_Kd) else points_Kd
        found.append(list(setting.rank(chosen, [row] * len(chosen))) if len(chosen) else [])
    return found


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("BM25", rankings=bm25),
        Method("BM25 and RM3", rankings=rm3),
        Method("feedback vectors", rankings=feedback_vectors),
        Method(LOG, texts=nearest_log, needs_log=True),
        Method("suggestions", texts=suggested, needs_suggester=True),
        Method(NOISE, texts=noise),
        Method("paraphrases", texts=paraphrases, needs_paraphraser=True),
        Method("texts of the first hit", texts=from_first_hit),
        Method(TO_GOLD, texts=to_gold, oracle=True),
        Method(TO_HITS, texts=to_hits),
    )
}
