"""Several models on one suite: how alike their rankings and vectors are, with seeds of one recipe as the noise floor.

Neighbors come first: CKA is easily manipulated (arXiv:2210.16156), and a search shows neighbors. No judgment
is read, so that all queries count.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.ranking import Progress, Ranker, no_progress
from gemma4vec.inspection.geometry.likeness import debiased_cka, overlap, rbo
from gemma4vec.inspection.inspect import steps_of
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.reading import read_model
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.statistics.student import t_interval
from gemma4vec.text.text_embedder import TextEmbedder

VECTORS = 1_000  # documents of the CKA
NO_FLOOR = "no two models are trainings of one recipe, so there is no noise floor: another seed may differ as much"


def find_similar(
    subjects: Sequence[Subject], suite: RetrievalSuite, *, seed: int = 0, progress: Progress = no_progress
) -> dict[str, Any]:
    """Every pair of models as JSON values, most alike first, and the mean of pairs of one recipe.

    Args:
        seed: of the sample of documents for CKA.

    Raises:
        InputError: fewer than two different models; a final suite.
    """
    check_choice("inspect similar", suite)
    if len({one.model.fingerprint for one in subjects}) < max(2, len(subjects)):
        raise InputError("inspect similar: name two different models or more")
    readings = [_top(one, suite, progress) for one in subjects]
    drawn = np.sort(np.random.default_rng(seed).permutation(len(suite.corpus))[:VECTORS])
    vectors = [_vectors(one, suite, drawn) for one in subjects]
    pairs = []
    for a, b in combinations(range(len(subjects)), 2):
        shared = t_interval(overlap(readings[a], readings[b]))
        ranked = t_interval(rbo(readings[a], readings[b]))
        one, other = vectors[a], vectors[b]
        known = one is not None and other is not None and len(drawn) >= 4
        pairs.append(
            {
                "a": subjects[a].model.name,
                "b": subjects[b].model.name,
                "same_recipe": _same_recipe(subjects[a], subjects[b]),
                "overlap": shared.bounds(),
                "rbo": ranked.bounds(),
                "cka": debiased_cka(one, other) if known and one is not None and other is not None else None,
            }
        )
    floor = _floor([one for one in pairs if one["same_recipe"]])
    return {
        "suite": {"name": suite.name, "fingerprint": suite.fingerprint},
        "models": [one.as_json() for one in subjects],
        "queries": len(suite.queries),
        "documents": len(drawn),
        "floor": floor,
        "pairs": sorted(pairs, key=lambda one: -one["overlap"]["mean"]),
        "notes": [] if floor is not None else [NO_FLOOR],
    }


def _floor(pairs: Sequence[dict[str, Any]]) -> dict[str, float | None] | None:
    """Means over the pairs of one recipe."""
    if not pairs:
        return None
    known = [one["cka"] for one in pairs if one["cka"] is not None]
    return {
        "pairs": float(len(pairs)),
        "overlap": float(np.mean([one["overlap"]["mean"] for one in pairs])),
        "rbo": float(np.mean([one["rbo"]["mean"] for one in pairs])),
        "cka": float(np.mean(known)) if known else None,
    }


def _same_recipe(a: Subject, b: Subject) -> bool:
    """Whether both are trainings of one recipe."""
    ids = [one.run.manifest.get("recipe_id") if one.run is not None else None for one in (a, b)]
    return ids[0] is not None and ids[0] == ids[1]


def _top(one: Subject, suite: RetrievalSuite, progress: Progress) -> npt.NDArray[np.int64]:
    return read_model(one.model, suite, steps_of(one, suite.fingerprint), run=one.run, progress=progress).top


def _vectors(one: Subject, suite: RetrievalSuite, drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.floating] | None:
    """Vectors of the drawn documents; None for a model without vectors."""
    model: TextEmbedder | Ranker = one.model
    if isinstance(model, Ranker):
        return None
    found: npt.NDArray[np.floating] = model.encode_document([suite.corpus[at] for at in drawn.tolist()])
    return found
