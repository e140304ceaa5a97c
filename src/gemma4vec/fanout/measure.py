"""What suggestions are worth: the fused ranking's gain, what could be had with the label, and how the texts are.

Choosing the best of n by nDCG flatters: random directions gain by it too. So the best of n of every method stands
against that of noise at the same angles, and only the fused ranking, which sees no label, counts as a gain.

Shapes: Q queries, K places.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.evaluation.scoring.vector_ranking import score_places
from gemma4vec.fanout.fuse import fuse, union
from gemma4vec.fanout.methods import LOG, METHODS, NOISE, Method
from gemma4vec.fanout.setting import DEPTH, Ints, Report, Setting
from gemma4vec.fanout.suggestions import Suggestions, suggest
from gemma4vec.statistics.bootstrap import mean_interval
from gemma4vec.statistics.multiplicity import holm
from gemma4vec.statistics.paired import sign_flip_test

Floats = NDArray[np.float64]
METRIC, RECALL = "ndcg@10", "recall@100"
LOSS = 0.01  # a mean loss that would matter


def score(setting: Setting, rankings: Sequence[Ints], rows: Sequence[int], metric: str = METRIC) -> Floats:
    """The metric of each ranking `[N]`, for the query that it belongs to."""
    if not len(rankings):
        return np.zeros(0)
    found_NK = np.full((len(rankings), DEPTH), -1, np.int64)
    for number, ranking in enumerate(rankings):
        found_NK[number, : len(ranking)] = ranking
    return score_places(setting.suite, found_NK, metric, rows)


def measure_fanout(
    setting: Setting, names: Sequence[str] | None = None, *, report: Report | None = None
) -> dict[str, Any]:
    """The table of all methods.

    Args:
        setting: suite, model, writer.
        names: of methods; None: all that can be run. Noise is always among them.
        report: called as `report(method, done, in all)`.
    """
    methods = [METHODS[name] for name in names or METHODS]
    if all(method.name != NOISE for method in methods):
        methods.append(METHODS[NOISE])
    methods = [method for method in methods if method.can_run(setting)]
    every = range(len(setting.suite.queries))
    own_Q, own_recall_Q = (score(setting, list(setting.own_rankings), every, metric) for metric in (METRIC, RECALL))
    values: dict[str, dict[str, Floats]] = {}
    facts: dict[str, dict[str, float]] = {}
    for number, method in enumerate(methods):
        if report is not None:
            report(method.name, number, len(methods))
        found = suggest(setting, method)
        values[method.name] = _values(setting, found, own_Q, own_recall_Q)
        facts[method.name] = _facts(setting, found)
    rows = [_row(method, values, facts[method.name]) for method in methods]
    _correct(rows)
    return {
        METRIC: mean_interval(own_Q).bounds(),
        RECALL: float(own_recall_Q.mean()),
        "queries": len(own_Q),
        "writer": setting.writer.name,
        "rows": rows,
        "sentence": sentence(rows),
    }


def _values(setting: Setting, found: Sequence[Suggestions], own_Q: Floats, own_recall_Q: Floats) -> dict[str, Floats]:
    """By query: gain of the fused ranking, of the best single suggestion, and of the union's recall."""
    every, weight = range(len(found)), setting.choices.weight
    fused, together = [], []
    for own_K, one in zip(setting.own_rankings, found, strict=True):
        fused.append(fuse(own_K, one.rankings, weight, DEPTH)[0] if one.rankings else own_K)
        together.append(union(own_K, one.rankings, DEPTH) if one.rankings else own_K)
    owners = [row for row, one in enumerate(found) for _ in one.rankings]
    single = score(setting, [ranking for one in found for ranking in one.rankings], owners)
    best_Q = own_Q.copy()
    np.maximum.at(best_Q, owners, single)
    return {
        "gain": score(setting, fused, every) - own_Q,
        "best": best_Q - own_Q,
        "recall": score(setting, together, every, RECALL) - own_recall_Q,
    }


def _facts(setting: Setting, found: Sequence[Suggestions]) -> dict[str, float]:
    """How the kept texts are: number, likeness to the query and to each other, topic, novelty."""
    counts = [len(one.rankings) for one in found]
    facts = {"kept": float(np.mean(counts)), "written": float(np.mean([one.written for one in found]))}
    texts = [text for one in found for text in one.texts]
    if not texts:
        return facts
    with_texts = [(row, one) for row, one in enumerate(found) if one.texts]
    cosines = np.concatenate([one.vectors_Sd @ setting.queries_Qd[row] for row, one in with_texts])
    pairs = [one.vectors_Sd @ one.vectors_Sd.T for _, one in with_texts if len(one.texts) > 1]
    alike = [matrix[~np.eye(len(matrix), dtype=bool)].mean() for matrix in pairs]
    words = [word for text in texts for word in text.lower().split()]
    topical = [
        bool(set(ranking[:10].tolist()) & set(setting.gold[row])) for row, one in with_texts for ranking in one.rankings
    ]
    return facts | {
        "cosine": float(cosines.mean()),
        "alike": float(np.mean(alike)) if alike else float("nan"),
        "distinct_words": len(set(words)) / len(words),
        "holds_gold": float(np.mean(topical)),
        "verbatim": float(np.mean([setting.writer.is_known(text) for text in texts])),
    }


def _row(method: Method, of: dict[str, dict[str, Floats]], facts: dict[str, float]) -> dict[str, Any]:
    values, noise_best_Q = of[method.name], of[NOISE]["best"]
    gain = mean_interval(values["gain"])
    return {
        "method": method.name,
        "oracle": method.oracle,
        "gain": gain.bounds(),
        "p": sign_flip_test(values["gain"]).p,
        "no_worse": gain.low > -LOSS,
        "best": mean_interval(values["best"]).bounds(),
        "best_minus_noise": None if method.name == NOISE else mean_interval(values["best"] - noise_best_Q).bounds(),
        "gain_over_log": None if method.name == LOG or LOG not in of else _over(values["gain"] - of[LOG]["gain"]),
        "recall": mean_interval(values["recall"]).bounds(),
        **{name: value for name, value in facts.items() if value == value},
    }


def _over(differences_Q: Floats) -> dict[str, float]:
    """A paired difference, query by query, with its p-value before any correction."""
    return mean_interval(differences_Q).bounds() | {"p": sign_flip_test(differences_Q).p}


def _correct(rows: list[dict[str, Any]]) -> None:
    """Correct the p-values of methods that see no label for their number (Holm)."""
    fair = [row for row in rows if not row["oracle"]]
    for row, p in zip(fair, holm([row["p"] for row in fair]), strict=True):
        row["p_corrected"] = float(p)


def sentence(rows: Sequence[dict[str, Any]]) -> str:
    """What the table says, plainly."""
    won = [row for row in rows if not row["oracle"] and row["p_corrected"] < 0.05 and row["gain"]["mean"] > 0]
    lost = [
        row["method"] for row in rows if not row["oracle"] and row["p_corrected"] < 0.05 and row["gain"]["mean"] < 0
    ]
    if won:
        best = max(won, key=lambda row: row["gain"]["mean"])
        said = f"Without labels {best['method']} gains most: {best['gain']['mean']:+.3f} nDCG@10"
        said += f" [{best['gain']['low']:+.3f}, {best['gain']['high']:+.3f}]."
    else:
        said = "No method gains without labels: leave the queries as they are."
    if lost:
        said += f" These lose: {', '.join(lost)}."
    oracle = next((row for row in rows if row["oracle"] and row["best_minus_noise"]), None)
    if oracle is not None:
        over = oracle["best_minus_noise"]
        said += (
            f" With the label the best of n on the {oracle['method']} is {over['mean']:+.3f} "
            f"[{over['low']:+.3f}, {over['high']:+.3f}] above that of noise."
        )
    return said
