"""A stage of training on a tiny model, and the recipe of the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gemma4vec.data.rows.rows import Row
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.recipe import schema
from gemma4vec.text.prompts import Document
from gemma4vec.training.engine.step_bar import StepBar
from gemma4vec.training.engine.task import Loss, Task
from gemma4vec.training.stage import Evaluate, Stage
from gemma4vec.training.tasks.contrastive import ContrastTask

VERBS, THINGS = ("read", "write", "sort", "open", "close", "return"), ("file", "tree", "graph", "list")


def rows(negatives: int = 0) -> list[Row]:
    """24 rows, each query with a document that shares its words, and some that share one of them."""
    return [
        Row(f"{verb} the {thing}", [Document(f"def {thing}_{verb}")], _others(verb, thing)[:negatives])
        for verb in VERBS
        for thing in THINGS
    ]


def _others(verb: str, thing: str) -> list[Document]:
    return [Document(f"def {other}_{verb} here") for other in THINGS if other != thing]


def write_rows_file(path: Path) -> Path:
    """The same on disk."""
    from gemma4vec.data.rows.rows import write_rows

    write_rows(path, rows())
    return path


def make_stage(
    base: Path,
    out: Path,
    *,
    dtype: torch.dtype = torch.float32,
    evaluate: Evaluate | None = None,
    lora: dict[str, Any] | None = None,
    run: RunFolder | None = None,
    negatives: int = 0,
    **parts: dict[str, Any],
) -> Stage:
    """A stage ready for `train_stage`; `parts` change the parts of its recipe."""
    settings = schema.Stage.model_validate(
        {
            "data": [{"name": "rows", "path": "rows.jsonl"}],
            "task": {"temperature": 0.1} | parts.get("task", {}),
            "batch": {"rows": 8} | parts.get("batch", {}),
            "layout": {"row_tokens": 32, "tokens_per_forward": 128, "compile": False} | parts.get("layout", {}),
            "optimizer": {"learning_rate": 0.01, "warmup_steps": 2} | parts.get("optimizer", {}),
            "budget": parts.get("budget", {"steps": 4}),
            "evaluation": {"checkpoint_seconds": 0} | parts.get("evaluation", {}),
        }
    )
    model = schema.Model.model_validate({"base": str(base), "lora": {"rank": 4} | (lora or {}), "max_tokens": 48})
    built = build(model, base, dtype=dtype, seed=0)
    task = ContrastTask.make(settings, rows(negatives), built, max_tokens=48, seed=0)
    run = run or RunFolder.create(out, "tiny", "name: tiny\n")
    return Stage(0, settings, task, built, run, evaluate, StepBar("train"))


class WithLoss:
    """A task whose loss is another function; everything else is the task's own."""

    def __init__(self, task: Task, loss: Callable[[EmbeddingModel, Any], Loss]):
        self.task, self.loss = task, loss

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)


RECIPE = """
name: killed
model:
  base: {base}
  dtype: bf16
  max_tokens: 48
  lora: {{rank: 4, dropout: 0.2}}
stages:
  - name: contrast
    data: [{{name: rows, path: {rows}}}]
    task: {{temperature: 0.1}}
    batch: {{rows: 4, accumulate: 2}}
    layout: {{row_tokens: 32, tokens_per_forward: 128, compile: false}}
    optimizer: {{learning_rate: 0.01, warmup_steps: 2}}
    budget: {{steps: 6}}
    evaluation: {{checkpoint_seconds: 0}}
"""
