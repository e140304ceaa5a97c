"""Train tiny models on the CPU and on a GPU that is pretended: run as `python pretended.py FOLDER CASE ...`.

It writes `FOLDER/outcomes.json`: for each case of `CASES` that is named the losses and gradient norms of the steps on
both, the largest difference of the two saved models' vectors, each encoded on its device, and where steps waited for
the GPU.
"""

import gc
import json
import os
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pretend_gpu import NAME, PretendTensor, pretend_gpu, waits
from tiny_context import write_context
from tiny_model import TEXTS, write_tiny
from tiny_run import RECIPE, rows

from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.data.rows.scores import Scores
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.machine.device import DeviceChoice
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe.load import load_recipe
from gemma4vec.training import run as run_module
from gemma4vec.training.run import start_run, train_run

TERMS: list[dict[str, Any]] = [
    {"kind": "nce", "hardness": 5.0, "share_hard_negatives": False, "matryoshka": [32, 16]},
    {"kind": "nce", "name": "wide", "query_query": True, "passage_passage": True, "symmetric": True},
    {"kind": "nce", "name": "margin", "false_negative_margin": 0.1},
    {"kind": "gor", "weight": 0.5},
    {"kind": "self_contrast", "weight": 0.1},
    {"kind": "matching", "vectors": "VECTORS", "form": "projection"},
    {"kind": "matching", "name": "relations", "vectors": "VECTORS", "form": "relational"},
    {"kind": "matching", "name": "list", "vectors": "VECTORS", "form": "listwise"},
    {"kind": "kl", "weight": 0.5, "source_weights": {"rows": 0.0}},
    {"kind": "margin_mse", "weight": 0.5, "source_weights": {"rows": 0.0}},
]
BIDIRECTIONAL = {"attention": "bidirectional"}
CAUSAL = {"attention": "causal", "readout": {"name": "last_token"}}
# Sentinels are characters of bytes that no text has: the tiny tokenizer has no unused tokens.
DENOISING = {"kind": "ul2", "sentinels": [chr(256 + number) for number in range(8)]}
# Of each case the base's family, what of the model and what of the stage is not the recipe's.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "packed": ("gemma3", {}, {"layout": {"kind": "packed"}}),
    "padded": ("gemma3", {}, {"layout": {"kind": "padded"}}),
    "shared beginnings": ("llama", CAUSAL, {"layout": {"share_prefixes": True}}),
    "checkpointed": ("gemma3", {}, {"layout": {"gradient_checkpointing": True}}),
    "selective": ("gemma3", {}, {"layout": {"gradient_checkpointing": "selective"}}),
    "GradCache": ("gemma3", {"lora": {"rank": 4, "dropout": 0.2}}, {"layout": {"grad_cache": True}}),
    "mean": ("gemma4", BIDIRECTIONAL | {"readout": {"name": "mean", "pool_prompt": False}}, {}),
    "weighted_mean": ("qwen3", {"readout": {"name": "weighted_mean"}}, {}),
    "attention": ("llama", BIDIRECTIONAL | {"readout": {"name": "attention", "heads": 2}}, {}),
    "latent_attention": ("gemma3", BIDIRECTIONAL | {"readout": {"name": "latent_attention", "latents": 32}}, {}),
    "layer_mix": ("gemma3", BIDIRECTIONAL | {"readout": {"name": "layer_mix"}}, {}),
    "echo_delta": ("llama", {"readout": {"name": "echo_delta"}}, {}),
    "contextual_token": ("llama", {"readout": {"name": "contextual_token", "encoder": "CONTEXT"}}, {}),
    "a head": ("gemma3", {"head": {"widths": [20]}}, {}),
    "all terms": (
        "gemma3",
        {"lora": {"rank": 4, "dropout": 0.2}},
        {"task": {"hard_negatives": 2, "terms": TERMS, "learn_temperature": {}}},
    ),
    "denoising": ("gemma3", BIDIRECTIONAL | {"readout": {"name": "mean"}}, {"task": DENOISING}),
    "masked tokens": ("gemma3", BIDIRECTIONAL | {"readout": {"name": "mean"}}, {"task": {"kind": "masked_next_token"}}),
}
# These differ little from others: `make slow` runs them.
SLOW = (
    "packed",  # as "all terms" is
    "padded",
    "shared beginnings",
    "contextual_token",
    "masked tokens",
    "checkpointed",
    "selective",
    "mean",
    "latent_attention",
    "weighted_mean",
    "attention",
    "layer_mix",
    "echo_delta",
    "a head",
)
ON_TEXTS = ("masked_next_token", "ul2")
QUERIES = ["read the file", "sort the tree", "close the list at the end of the graph", ""]


def write_inputs(folder: Path) -> None:
    """Bases, rows with scores and without, texts, a teacher's vectors and a small encoder."""
    for architecture in sorted({architecture for architecture, _, _ in CASES.values()}):
        write_tiny(folder / architecture, architecture, layers=2)
    write_context(folder / "context")
    every = rows(2)
    write_rows(folder / "rows.jsonl", every)
    scores = Scores(pos=(0.9,), neg=(0.2, 0.1))
    write_rows(folder / "scored.jsonl", [Row(row.query, row.pos, row.neg, scores=scores) for row in every])
    (folder / "texts.txt").write_text("\n\n".join(TEXTS[:40]) + "\n")
    texts = {text for row in every for text in (row.query, *(one.text for one in (*row.pos, *row.neg)))}
    random = np.random.default_rng(0)
    lines = [json.dumps({"text": text, "vector": random.normal(size=12).tolist()}) for text in sorted(texts)]
    (folder / "vectors.jsonl").write_text("\n".join(lines))


def recipe_of(folder: Path, case: str) -> Path:
    """Write the case's recipe."""
    architecture, model, parts = CASES[case]
    tree = yaml.safe_load(RECIPE.format(base=folder / architecture, rows=folder / "rows.jsonl"))
    tree["model"] |= {"dtype": "fp32", "lora": {"rank": 4}} | model
    stage = tree["stages"][0]
    stage["budget"] = {"steps": 2}
    stage["task"] |= {"hard_negatives": 1}
    for name, part in parts.items():
        stage[name] = (stage[name] | part) if part.get("kind") not in ON_TEXTS else part
    if stage["task"].get("kind") in ON_TEXTS:
        stage["data"] = [{"name": "texts", "source": "text", "path": str(folder / "texts.txt")}]
    if "terms" in stage["task"]:
        stage["data"].append({"name": "scored", "path": str(folder / "scored.jsonl")})
    text = yaml.safe_dump(tree).replace("VECTORS", str(folder / "vectors.jsonl"))
    path = folder / f"{case.replace(' ', '_')}.yaml"
    path.write_text(text.replace("CONTEXT", str(folder / "context" / "encoder")))
    return path


def train(path: Path, out: Path) -> RunFolder:
    """A run of the recipe."""
    run = start_run(load_recipe(path), out)
    train_run(run)
    return run


def outcome(folder: Path, case: str) -> dict[str, Any]:
    """Both runs."""
    path, name = recipe_of(folder, case), case.replace(" ", "_")
    on_cpu = train(path, folder / f"{name}-cpu")
    expected = Embedder.load(on_cpu.path, device="cpu", dtype="fp32").encode_query(QUERIES)
    chosen, run_module.choose_device = run_module.choose_device, lambda: DeviceChoice(NAME)
    waits.clear()
    try:
        there = train(path, folder / f"{name}-gpu")
        embedder = Embedder.load(there.path, device=NAME, dtype="fp32")
        found = embedder.encode_query(QUERIES)
    finally:
        run_module.choose_device = chosen
    assert isinstance(next(embedder.encoder.parameters()), PretendTensor)  # type: ignore[union-attr]
    in_steps = Counter[str]()
    for (operation, places), times in waits.items():
        if "training.loop._train_step" in places:
            in_steps[f"{places[0]}: {operation}"] += times
    return {
        "difference": float(np.abs(found - expected).max()),
        "cpu": [(event["loss"], event["gradient_norm"]) for event in on_cpu.events("step")],
        "gpu": [(event["loss"], event["gradient_norm"]) for event in there.events("step")],
        "waits": in_steps,
    }


def harness() -> dict[str, Any]:
    """What the pretended GPU makes of a mistake, and of a value that is read back."""
    there, here = torch.ones(3, device=NAME), torch.ones(3)
    try:
        refused = str(there + here)
    except RuntimeError as error:
        refused = str(error)
    waits.clear()
    (there + torch.ones(())).sum()  # a single number may be on the CPU
    before = sum(waits.values())
    there.sum().item(), there.nonzero(), here.to(NAME), there.cpu(), there[there > 0], there[here.long()]
    noted = sorted(operation for operation, _ in waits)
    here.to(NAME, non_blocking=True), there.repeat_interleave(2)
    return {"refused": refused, "before": before, "noted": noted, "after": sum(waits.values())}


def main(folder: Path, cases: list[str]) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # each of forty collections would look through all that is imported
    write_inputs(folder)
    outcomes: dict[str, Any] = {}
    with pretend_gpu():
        outcomes["harness"] = harness()
        for case in cases:
            try:
                outcomes[case] = outcome(folder, case)
            except Exception:  # the other cases are worth knowing too
                outcomes[case] = {"error": traceback.format_exc()}
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
