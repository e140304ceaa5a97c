"""The tiny trainings of `make same-loss`, each recipe chosen for the paths through the code that it takes.

Keys are spelled as commit da599b7 spells them, so that old and new code read the same files. All paths are relative to
the working folder, which `same_loss_worker` fills.
"""

import copy
from typing import Final

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Tree = dict[str, Json]

LAYOUT: Final[Tree] = {"row_tokens": 48, "tokens_per_forward": 192, "compile": False}
OPTIMIZER: Final[Tree] = {"learning_rate": 0.01, "warmup_steps": 2}
LORA: Final[Tree] = {"rank": 4, "alpha": 8}
ROWS: Final[Tree] = {"name": "rows", "path": "rows.jsonl"}
OTHERS: Final[Tree] = {"name": "others", "path": "others.jsonl", "prompts": "none"}
SUITE: Final = "suite"


def stage(name: str = "contrast", *, steps: int = 6, **parts: Json) -> Tree:
    """One stage of `steps` optimizer steps of 8 rows; `parts` replace or extend its parts."""
    made: Tree = {
        "name": name,
        "data": [copy.deepcopy(ROWS)],
        "batch": {"rows": 8},
        "layout": copy.deepcopy(LAYOUT),
        "optimiser": copy.deepcopy(OPTIMIZER),
        "budget": {"steps": steps},
        "evaluation": {"checkpoint_seconds": 3600},
    }
    for key, part in parts.items():
        before = made.get(key)
        made[key] = {**before, **part} if isinstance(before, dict) and isinstance(part, dict) else part
    return made


def model(**parts: Json) -> Tree:
    """A model on the tiny base, with LoRA unless `parts` decide otherwise."""
    return {"base": "base", "dtype": "fp32", "max_tokens": 40, "lora": copy.deepcopy(LORA), **parts}


def recipe(name: str, model_part: Tree, *stages: Tree, seed: int = 1) -> Tree:
    """A whole recipe."""
    return {"name": name, "model": model_part, "stages": list(stages), "seed": seed}


def recipes() -> dict[str, Tree]:
    """All trainings by name, in the order in which they run."""
    packed = recipe(
        "packed",
        model(lora={**LORA, "dropout": 0.1}),
        stage(
            batch={"rows": 8, "accumulate": 2, "group_rows": 2},
            task={"temperature": 0.1, "hard_negatives": 2},
            evaluation={"checkpoint_seconds": 3600, "every_steps": 3, "suite": SUITE},
        ),
    )
    two_stages = recipe(
        "two_stages",
        model(readout="last_token", prompts="code_retrieval"),
        stage("adapt", steps=4, task={"kind": "masked_next_token"}),
        stage("contrast", steps=4, task={"temperature": 0.1, "hard_negatives": 1}),
    )
    grad_cache = recipe(
        "grad_cache",
        model(attention="causal", readout="last_token", dtype="bf16"),
        stage(
            layout={"grad_cache": True, "share_beginnings": True},
            task={"temperature": 0.1, "hard_negatives": 1, "share_hard_negatives": False},
            batch={"rows": 16, "distinct": True},
        ),
    )
    terms = recipe(
        "terms",
        model(readout={"name": "mean", "pool_prompt": False}, head={"widths": [24, 16], "bias": True}),
        stage(
            data=[copy.deepcopy(ROWS), copy.deepcopy(OTHERS)],
            mixture={"temperature": 2.0},
            task={
                "temperature": 0.1,
                "learn_temperature": {"minimum": 0.02, "maximum": 0.4},
                "hard_negatives": 2,
                "terms": [
                    {"kind": "nce", "matryoshka": [4, 16], "matryoshka_weights": [0.5, 1.0], "hardness": 5.0},
                    {
                        "kind": "nce",
                        "name": "wide",
                        "weight": 0.3,
                        "symmetric": True,
                        "query_query": True,
                        "passage_passage": True,
                        "false_negative_margin": 0.1,
                        "hardness": 0,
                    },
                    {"kind": "gor", "weight": 0.2},
                    {"kind": "gor", "name": "spread", "form": "spread_out", "weight": 0.1, "matryoshka": [8]},
                ],
            },
            optimiser={"schedule": "linear", "readout_learning_rate": 0.02},
        ),
    )
    scores = recipe(
        "scores",
        model(readout="echo_delta", attention="causal", lora={**LORA, "dropout": 0.2, "rslora": True}),
        stage(
            task={
                "temperature": 0.1,
                "hard_negatives": 3,
                "terms": [
                    {"kind": "nce", "weight": 0.5},
                    {"kind": "kl", "teacher_temperature": 2.0},
                    {"kind": "margin_mse", "teacher_scale": 0.1},
                    {"kind": "self_contrast", "weight": 0.2, "texts": "queries"},
                ],
            },
        ),
    )
    full = recipe(
        "full",
        model(lora=None, train="full", readout={"name": "attention", "heads": 2}),
        stage(
            task={"temperature": 0.1},
            layout={"kind": "padded", "gradient_checkpointing": True},
            optimiser={"learning_rate": 0.002, "clip": None, "schedule": "constant"},
        ),
    )
    mixed_layers = recipe(
        "mixed_layers",
        model(readout={"name": "layer_mix"}, lora={**LORA, "modules": ["q_proj", "v_proj"], "dora": True}),
        stage(
            task={"temperature": 0.1, "hard_negatives": 1},
            layout={"grouping": "candidate_packed"},
            batch={"rows": 8, "tokenise": "once"},
        ),
    )
    return {str(one["name"]): one for one in (packed, two_stages, grad_cache, terms, scores, full, mixed_layers)}
