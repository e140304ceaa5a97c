"""Readouts with parameters are trained with everything else, and the finished model has what was trained."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny_context import write_context
from tiny_model import write_tiny
from tiny_run import RECIPE, write_rows_file

from gemma4vec.model.encoder.build import build
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe.load import load_recipe
from gemma4vec.training.engine.checkpoint import latest_checkpoint, trained_weights
from gemma4vec.training.run import start_run, train_run

QUERIES = ["read the file", "sort the tree", "close the list at the end of the graph", ""]
CASES = [
    ("gemma3", "bidirectional", "{name: latent_attention, latents: 32, heads: 4}", "packed"),
    ("llama", "causal", "{name: contextual_token, encoder: ENCODER}", "packed"),
    ("gemma3", "bidirectional", "{name: layer_mix, scale: false}", "packed"),
    ("llama", "causal", "{name: echo_delta, join: concat}", "padded"),
    ("llama", "bidirectional", "{name: attention, heads: 2}", "padded"),
]


@pytest.mark.parametrize(("architecture", "attention", "readout", "layout"), CASES)
def test_a_run_trains_the_readout_and_saves_it(
    tmp_path: Path, architecture: str, attention: str, readout: str, layout: str
) -> None:
    base = write_tiny(tmp_path / "base", architecture, layers=2)
    context = write_context(tmp_path / "context") if "ENCODER" in readout else tmp_path
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(base=base, rows=write_rows_file(tmp_path / "rows.jsonl")))
    changes = [
        "model.dtype=fp32",
        "model.lora.dropout=0",
        "model.head.widths=[20]",
        f"model.attention={attention}",
        f"model.readout={readout.replace('ENCODER', str(context))}",
        f"stages.0.layout.kind={layout}",
        "stages.0.budget.steps=3",
        "stages.0.optimizer.readout_learning_rate=0.1",
    ]
    recipe = load_recipe(tmp_path / "recipe.yaml", changes)
    run = start_run(recipe, tmp_path / "runs")
    train_run(run)

    fresh = build(recipe.model, base, dtype=torch.float32, seed=recipe.seed)
    checkpoint = latest_checkpoint(run.checkpoints / "0-contrast")
    assert checkpoint is not None
    trained = trained_weights(checkpoint)
    own = {name: value for name, value in fresh.trainable().items() if name.startswith(("readout.", "head."))}
    assert len(own) >= 2 and all(not torch.equal(value, trained[name]) for name, value in own.items())

    unmerged = unmerged_vectors(fresh, trained)
    shutil.rmtree(base)
    merged = Embedder.load(run.path, dtype="fp32").encode_query(QUERIES)
    np.testing.assert_allclose(merged, unmerged, atol=2e-5)
    theirs = SentenceTransformer(str(run.model), device="cpu", trust_remote_code=True).encode_query(QUERIES)
    assert ((merged * theirs).sum(1) >= 0.99999).all() and merged.shape == (4, 20)


def unmerged_vectors(fresh: Any, trained: dict[str, torch.Tensor]) -> np.ndarray:
    fresh.load_trained(trained)
    return Embedder(fresh, name="unmerged", fingerprint="x", max_tokens=48).encode_query(QUERIES)
