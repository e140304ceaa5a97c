"""Results as `gemma4vec fanout --keep` and `gemma4vec invert --keep` write them."""

from typing import Any

from hostile_page import HOSTILE

BOUNDS = {"mean": 0.1, "low": 0.0, "high": 0.2}
COSINES = {"to_query": 0.9, "to_target": 0.2, "to_point": 0.8}
STEPS = [
    {"degrees": 4.0, "text": "red green", "rank": 5, **COSINES},
    {"degrees": 8.0, "text": f"green {HOSTILE}", "rank": 2, **COSINES},
]
WAY = {"degrees": 40.0, "points": 10, "rank": 7, "steps": STEPS}
METHOD = {"method": "noise", "oracle": False, "kept": 2.0, "gain": BOUNDS, "best_minus_noise": None}
TEXT = {"row": 0, "text": f"back {HOSTILE}", "cosine": 0.5, "how": "greedy", "cleaned": 0}


def kept_result(kind: str = "walk", **changes: Any) -> dict[str, Any]:
    """A result of one kind, with fields changed."""
    of_suite = {"suite": "dev", "writer": "w", "queries": 9, "ndcg@10": BOUNDS, "sentence": "No method gains."}
    measures = {"decoder": {"f1": BOUNDS, "cosine": BOUNDS}}
    of_decoder = {"decoder": "w", "role": "query"}
    about: dict[str, dict[str, Any]] = {
        "walk": {"query": f"kept {HOSTILE}", "writer": "nearest", "target": "the end", **WAY},
        "table": {**of_suite, "rows": [METHOD]},
        "texts": {**of_decoder, "rows": [{**TEXT, "nearest": None, "nearest_cosine": None}]},
        "measured": {**of_decoder, "n": 2, "texts": 30, "rows": measures, "remark": "a lower bound"}
        | {"differences": {"f1 over ridge": BOUNDS}},
    }
    return {"model": "m", **about[kind], **changes}
