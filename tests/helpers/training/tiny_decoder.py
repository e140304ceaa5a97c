"""A tiny decoder: recipe, encoder, base, and a trained folder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_model import TEXTS, write_tiny
from tiny_saved import save_tiny

from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.backbone.lm_head import load_head
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.recipe import schema
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.training.run import start_run, train_run
from gemma4vec.training.tasks.vector_to_text import VectorToTextTask
from gemma4vec.training.writing.text_vectors import EmbeddedTexts, VectorSource, split_texts

RECIPE = """
name: decoder
model: {{base: {base}, dtype: fp32, attention: causal, max_tokens: 24, lora: null, train: full}}
stages:
  - name: invert
    data: [{{name: texts, source: text, path: {texts}}}]
    task:
      kind: vector_to_text
      embedder: {encoder}
      prefix_tokens: 4
      held_out: 40
      sampled_vocabulary: 100
      noise_degrees: 2
      mix_share: 0.1
    batch: {{rows: 32}}
    layout: {{row_tokens: 64, tokens_per_forward: 1024, compile: false}}
    optimizer: {{learning_rate: 0.01, warmup_steps: 5}}
    budget: {{steps: 120}}
    evaluation: {{checkpoint_seconds: 0, snapshot_at_shares: [0.25, 1.0]}}
"""


def write_inputs(folder: Path, kind: str = "both-mean", architecture: str = "gemma3") -> str:
    """An encoder, a base and texts below `folder`; returns the recipe."""
    encoder = save_tiny(folder / "encoder", kind)
    base = write_tiny(folder / "base", architecture, layers=2)
    texts = folder / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n")
    return RECIPE.format(base=base, texts=texts, encoder=encoder)


def train_decoder(recipe: str, out: Path, *changes: str) -> RunFolder:
    """The run of a recipe."""
    run = start_run(parse_recipe(recipe, "r", list(changes)), out)
    train_run(run)
    return run


def made(
    base: Path, *, texts: list[str] = TEXTS, dtype: torch.dtype = torch.float64, seed: int = 0, **parts: Any
) -> tuple[VectorToTextTask, EmbeddingModel]:
    """A task on random vectors of 12 dimensions, and its model."""
    model = {"base": str(base), "attention": "causal", "lora": None, "train": "full", "max_tokens": 24}
    built = build(schema.Model.model_validate(model | parts.get("model", {})), base, dtype=dtype)
    task = {"kind": "vector_to_text", "embedder": "none", "prefix_tokens": 3, "sampled_vocabulary": None}
    stage = schema.Stage.model_validate(
        {
            "data": [{"name": "t", "source": "text", "path": "t.txt"}],
            "task": task | {"held_out": 20} | parts.get("task", {}),
            "batch": {"rows": 8} | parts.get("batch", {}),
            "layout": {"row_tokens": 32, "tokens_per_forward": 64, "compile": False} | parts.get("layout", {}),
            "budget": {"steps": 1},
        }
    )
    assert isinstance(stage.task, schema.VectorToText)
    trained, kept = split_texts(texts, stage.task.held_out)
    drawn = np.random.default_rng(0).standard_normal((len(trained) + len(kept), 12)).astype(np.float32)
    vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    embedded = EmbeddedTexts(trained, vectors[: len(trained)], kept, vectors[len(trained) :], VectorSource("x", "y"))
    head = load_head(built.encoder.backbone, base, "vector_to_text")
    return VectorToTextTask.make(stage, stage.task, embedded, built, head, max_tokens=24, seed=seed), built
