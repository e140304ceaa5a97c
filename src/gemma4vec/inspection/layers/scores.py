"""What each layer would score on a dev suite: nDCG@10 among a sample of documents, effective rank, likeness to the end.

Middle layers can beat the last one (arXiv:2502.02013). Which is best is a choice among many, so the score of the best
is given beside what such a choice scores on queries that did not choose.

Legend: L layers, N queries, M documents.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.inspection.geometry.dimensions import METRIC, rank_sample
from gemma4vec.inspection.geometry.figures import effective_rank, eigenvalues
from gemma4vec.inspection.geometry.likeness import debiased_cka
from gemma4vec.inspection.layers.states import find_embedder, layer_vectors, pools_by_itself
from gemma4vec.statistics.multiplicity import holm
from gemma4vec.statistics.paired import sign_flip_test
from gemma4vec.statistics.selection import selection_effect
from gemma4vec.statistics.student import t_interval

QUERIES, OTHERS = 150, 300
LEAST = 20  # queries
Floats = npt.NDArray[np.float64]


def layer_scores(model: Any, suite: RetrievalSuite, rows: Sequence[int], seed: int = 0) -> dict[str, Any]:
    """The contents of `layers.json`.

    Args:
        model: an embedder of ours, cached or not.
        rows: places of the queries that may be used: of the open half.
        seed: of the sample.

    Raises:
        InputError: a model whose layers cannot be read.
    """
    embedder = find_embedder(model)
    generator = np.random.default_rng([seed, 7])
    chosen = [rows[at] for at in np.sort(generator.permutation(len(rows))[:QUERIES]).tolist()]
    if len(chosen) < LEAST:
        return {"layers": [], "queries": len(chosen), "note": f"{len(chosen)} queries are too few ({LEAST} are needed)"}
    place = {key: index for index, key in enumerate(suite.corpus_ids)}
    ids = [suite.query_ids[row] for row in chosen]
    right = {place[key] for key_of in ids for key, grade in suite.qrels[key_of].items() if grade >= 1 and key in place}
    pool = sorted(right | set(generator.permutation(len(suite.corpus))[:OTHERS].tolist()))
    queries_LND = layer_vectors(embedder, [embedder.prompts.for_query(suite.queries[row]) for row in chosen])
    documents_LMD = layer_vectors(embedder, [embedder.prompts.for_document(suite.corpus[at]) for at in pool])
    kept = [suite.corpus_ids[at] for at in pool]
    scores_LN = np.array(
        [
            rank_sample(q_ND, d_MD, ids, kept, suite.qrels)[1]
            for q_ND, d_MD in zip(queries_LND, documents_LMD, strict=True)
        ]
    )
    gaps_LN = scores_LN - scores_LN[-1]
    p_L = holm([sign_flip_test(gaps_N, seed=seed).p for gaps_N in gaps_LN[:-1]])
    found = []
    for layer, gaps_N in enumerate(gaps_LN):
        limits = t_interval(gaps_N)
        found.append(
            {
                "layer": layer,
                METRIC: float(scores_LN[layer].mean()),
                "minus_last": limits.mean,
                "low": limits.low,
                "high": limits.high,
                "p_holm": float(p_L[layer]) if layer < len(p_L) else None,
                "effective_rank": _rank(documents_LMD[layer]),
                "cka_with_last": debiased_cka(documents_LMD[layer], documents_LMD[-1]),
            }
        )
    chosen_layer = selection_effect(scores_LN, seed=seed)
    note = "" if pools_by_itself(embedder) else "layers are pooled by the mean; the model's readout has parameters"
    return {
        "layers": found,
        "best": chosen_layer.best,
        "best_score": chosen_layer.score,
        "best_held_out": chosen_layer.held_out,
        "queries": len(chosen),
        "documents": len(pool),
        "pooling": embedder.encoder.readout.name if pools_by_itself(embedder) else "mean",
        "note": note,
    }


def _rank(documents_MD: npt.NDArray[np.float32]) -> float:
    """Effective rank; 1 where all vectors are one, as the input embedding of a last token is."""
    values_D = eigenvalues(np.cov(documents_MD.astype(np.float64).T))
    return effective_rank(values_D) if values_D.sum() > 1e-12 else 1.0
