"""A tiny suggester: pairs, recipe, base, and a trained run."""

from pathlib import Path
from typing import Any

import torch
from tiny_model import WORDS, write_tiny

from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.backbone.lm_head import load_head
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.recipe import schema
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.text.prompts import Document
from gemma4vec.training.run import start_run, train_run
from gemma4vec.training.tasks.suggestion import SuggestionTask
from gemma4vec.training.writing.suggestion_pairs import SuggestionPair, pairs_of

THINGS = ("node", "edge", "line")
ROWS = [
    Row(f"{a} the {thing}", [Document(f"{thing} {a}", f"{a} {b}\nthe {thing}")], task="suggestion", group=f"{a}-{b}")
    for a in WORDS.split()
    for b in WORDS.split()[:4]
    for thing in THINGS
]
PAIRS = pairs_of([Row(f"{row.query} {row.group}", row.pos, group=row.group) for row in ROWS])
READING = {"query_tokens": 10, "titles": 2, "title_tokens": 6}
RECIPE = """
name: suggester
model: {{base: {base}, dtype: fp32, attention: causal, max_tokens: 64, lora: null, train: full}}
stages:
  - name: distill
    data: [{{name: walks, source: jsonl, path: {pairs}}}]
    task:
      kind: suggestion
      reading: {{query_tokens: 10, titles: 2, title_tokens: 6}}
      held_out: 6
      sampled_vocabulary: 100
    batch: {{rows: 24}}
    layout: {{row_tokens: 128, tokens_per_forward: 2048, compile: false}}
    optimizer: {{learning_rate: 0.01, warmup_steps: 5}}
    budget: {{steps: 60}}
    evaluation: {{checkpoint_seconds: 0}}
"""


def write_pairs(folder: Path, architecture: str = "gemma3") -> str:
    """A base and pairs below `folder`; returns the recipe."""
    base = write_tiny(folder / "base", architecture, layers=2)
    pairs = folder / "pairs.jsonl"
    write_rows(pairs, ROWS)
    return RECIPE.format(base=base, pairs=pairs)


def train_suggester(recipe: str, out: Path, *changes: str) -> RunFolder:
    """The run of a recipe."""
    run = start_run(parse_recipe(recipe, "r", list(changes)), out)
    train_run(run)
    return run


def make_suggestions(
    base: Path, *, pairs: list[SuggestionPair] = PAIRS, seed: int = 0, **parts: Any
) -> tuple[SuggestionTask, EmbeddingModel]:
    """A task in float64, and its model."""
    model = {"base": str(base), "attention": "causal", "lora": None, "train": "full", "max_tokens": 64}
    built = build(schema.Model.model_validate(model | parts.get("model", {})), base, dtype=torch.float64)
    task = {"kind": "suggestion", "reading": READING, "sampled_vocabulary": None, "held_out": 20}
    stage = schema.Stage.model_validate(
        {
            "data": [{"name": "p", "path": "p.jsonl"}],
            "task": task | parts.get("task", {}),
            "batch": {"rows": 8} | parts.get("batch", {}),
            "layout": {"row_tokens": 160, "tokens_per_forward": 320, "compile": False} | parts.get("layout", {}),
            "budget": {"steps": 1},
        }
    )
    assert isinstance(stage.task, schema.Suggestion)
    head = load_head(built.encoder.backbone, base, "suggestion")
    return SuggestionTask.make(stage, stage.task, pairs, built, head, max_tokens=64, seed=seed), built
