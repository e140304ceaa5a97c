"""Two models as a reading list: queries that one answers and the other does not, those beyond seed noise first.

Queries of the open half alone. With further trainings (seeds) of a side, a query's noise is the largest difference
between two trainings of one recipe on it; what lies below says nothing about the recipes.

Legend: R runs of a side, N queries.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.ranking import Progress, no_progress
from gemma4vec.inspection.attributes import whole_text
from gemma4vec.inspection.inspect import steps_of
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.kinds import failed
from gemma4vec.inspection.reading import Reading, read_model
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.ledger.suite_halves import sealed_half, shown_half
from gemma4vec.retrieval.tokenize import WordTokenizer, choose_tokenizer

MOST = 100
WORDS = 12  # shared words that are listed for a document
NO_SEEDS = "no further seeds were named: how many queries another training would flip is unknown"
WITHHELD = "{:,} queries of the open half are sealed in another suite that has them: they are counted and not listed"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """One document of a top ten.

    Attributes:
        grade: as judged; None for a document that nobody judged.
        shared: words of the query that it has, as BM25 sees words.
    """

    doc_id: str
    score: float
    grade: int | None
    shared: list[str]


@dataclass(frozen=True)
class Flip:
    """One query of the list.

    Attributes:
        a, b: values of the metric, means over the runs of a side.
        difference: b minus a; `noise`: the largest difference between two runs of one side; `excess`: what is left.
        flip: "gained" if only B has a right document among the first ten, "lost" if only A has; None if both are alike.
        rank_a, rank_b: of the best right document; None where none was found to depth 1,000.
        right: ids of the right documents.
    """

    query_id: str
    a: float
    b: float
    difference: float
    noise: float
    excess: float
    flip: str | None
    rank_a: int | None
    rank_b: int | None
    right: list[str]
    top_a: list[Shown]
    top_b: list[Shown]


def find_flips(
    a: Sequence[Subject],
    b: Sequence[Subject],
    suite: RetrievalSuite,
    *,
    most: int = MOST,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """The reading list as JSON values: counts, and queries by what their difference exceeds seed noise.

    Args:
        a, b: the two models, each with further trainings of its recipe behind it.
        most: queries in the list; all are counted. Queries that are sealed in another suite are not in it.

    Raises:
        InputError: a final suite, one model on both sides, or no sealed query; as `evaluate`.
    """
    check_choice("inspect flips shows single queries", suite)
    same = {one.model.fingerprint for one in a} & {one.model.fingerprint for one in b}
    if same:
        raise InputError("inspect flips: one model is on both sides; name two")
    sealed_N = sealed_half(suite)
    if sealed_N is None:
        raise InputError(f"{suite.name} has no sealed query; there is nothing to list")
    metric = suite.metric or "ndcg@10"
    sides = [[_read(one, suite, progress) for one in side] for side in (a, b)]
    values_RN = [np.array([one.values(metric) for one in side]) for side in sides]
    shown_N = shown_half(suite)
    found = _listed(suite, metric, sides, values_RN, np.flatnonzero(~sealed_N), shown_N, most)
    return {
        "a": _side(a),
        "b": _side(b),
        "suite": {"name": suite.name, "fingerprint": suite.fingerprint},
        "metric": metric,
        "queries": int((~sealed_N).sum()),
        "sealed": int(sealed_N.sum()),
        **found,
    }


def seed_noise(values_RN: Sequence[Floats]) -> Floats:
    """The largest difference between two runs of one side, for every query, float64[N]."""
    spreads = [np.ptp(one_RN, axis=0) for one_RN in values_RN]
    noise_N: Floats = np.max(spreads, axis=0)
    return noise_N


def _listed(
    suite: RetrievalSuite,
    metric: str,
    sides: Sequence[Sequence[Reading]],
    values_RN: Sequence[Floats],
    open_N: npt.NDArray[np.int64],
    shown_N: npt.NDArray[np.bool_],
    most: int,
) -> dict[str, Any]:
    mean_a, mean_b = (one_RN.mean(axis=0) for one_RN in values_RN)
    noise_N = seed_noise(values_RN)
    excess_N = np.maximum(np.abs(mean_b - mean_a) - noise_N, 0.0)
    found_a, found_b = (~failed(side[0]) for side in sides)
    ranks = [side[0].gold_rank() for side in sides]
    differing = [row for row in open_N.tolist() if mean_a[row] != mean_b[row] or found_a[row] != found_b[row]]
    order = sorted(differing, key=lambda row: (-excess_N[row], -abs(mean_b[row] - mean_a[row]), suite.query_ids[row]))
    tokenize = choose_tokenizer([whole_text(one) for one in suite.corpus], code=suite.code)
    listed = []
    for row in [row for row in order if shown_N[row]][:most]:
        judged = suite.qrels[suite.query_ids[row]]
        tops = [_top(suite, side[0], row, tokenize) for side in sides]
        listed.append(
            Flip(
                suite.query_ids[row],
                float(mean_a[row]),
                float(mean_b[row]),
                float(mean_b[row] - mean_a[row]),
                float(noise_N[row]),
                float(excess_N[row]),
                _flip(bool(found_a[row]), bool(found_b[row])),
                int(ranks[0][row]) or None,
                int(ranks[1][row]) or None,
                sorted(key for key, grade in judged.items() if grade >= 1),
                *tops,
            )
        )
    withheld = int((~shown_N[open_N]).sum())
    gained, lost = found_b & ~found_a, found_a & ~found_b
    between = _flipped_between_seeds(sides, open_N)
    notes = [*([] if between is not None else [NO_SEEDS]), *([WITHHELD.format(withheld)] if withheld else [])]
    return {
        "gained": int(gained[open_N].sum()),
        "lost": int(lost[open_N].sum()),
        "differing": len(differing),
        "above_noise": int((excess_N[open_N] > 0.0).sum()),
        "flipped": float((gained | lost)[open_N].mean()),
        "flipped_between_seeds": between,
        "list": [asdict(one) for one in listed],
        "withheld": withheld,
        "notes": notes,
    }


def _flip(a: bool, b: bool) -> str | None:
    return None if a == b else "gained" if b else "lost"


def _flipped_between_seeds(sides: Sequence[Sequence[Reading]], open_N: npt.NDArray[np.int64]) -> float | None:
    """Share of queries that two trainings of one recipe answer differently, a mean over pairs; None without seeds."""
    pairs = [pair for side in sides for pair in combinations([failed(one)[open_N] for one in side], 2)]
    return float(np.mean([np.mean(one != other) for one, other in pairs])) if pairs else None


def _top(suite: RetrievalSuite, reading: Reading, row: int, tokenize: WordTokenizer) -> list[Shown]:
    wanted, judged = set(tokenize(suite.queries[row])), suite.qrels[suite.query_ids[row]]
    shown = []
    for document, score in zip(reading.top[row].tolist(), reading.top_scores[row].tolist(), strict=True):
        if document >= 0:
            key = suite.corpus_ids[document]
            shared = sorted(wanted & set(tokenize(whole_text(suite.corpus[document]))))[:WORDS]
            shown.append(Shown(key, float(score), judged.get(key), shared))
    return shown


def _read(one: Subject, suite: RetrievalSuite, progress: Progress) -> Reading:
    return read_model(one.model, suite, steps_of(one, suite.fingerprint), run=one.run, progress=progress)


def _side(side: Sequence[Subject]) -> dict[str, Any]:
    return {**side[0].as_json(), "seeds": [one.model.name for one in side[1:]]}
