"""Tiny finished runs that were trained, by a random number generator, from one start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tiny_model import write_tiny

from gemma4vec.ledger.lineage import INHERITED, WEIGHTS, union
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.encoder.build import build
from gemma4vec.model.save.model_lineage import lineage_of_folder
from gemma4vec.model.save.write_model import save_model
from gemma4vec.recipe.load import dump_recipe
from gemma4vec.recipe.recorded.fingerprint import recipe_id
from gemma4vec.recipe.schema import Budget, Model, Recipe, Stage, source_of
from gemma4vec.training.engine.made_from import MADE_FROM, model_part, parts_to_save

MAX_TOKENS = 40


def make_base(folder: Path) -> Path:
    """A random Gemma of two layers."""
    return write_tiny(folder / "base", layers=2)


def make_run(
    home: Path,
    base: Path,
    seed: int,
    *,
    start: Path | None = None,
    noise: float = 0.05,
    dtype: torch.dtype = torch.float32,
    rows: str | None = None,
    **changes: Any,
) -> RunFolder:
    """A finished run.

    Args:
        home: folder of its run folder.
        base: its base.
        seed: of the noise that stands for training.
        start: model folder that its weights come from; None: the base.
        noise: standard deviation of what training adds to each weight.
        dtype: of the saved weights.
        rows: content hash of its training data.
        changes: of the recipe's model part.
    """
    settings = {"base": str(base), "lora": None, "train": "full", "max_tokens": MAX_TOKENS, "prompts": "none"}
    model = Model.model_validate(settings | changes)
    stage = Stage(data=(source_of(name="a", path="a.jsonl"),), budget=Budget(steps=1))
    recipe = Recipe(name=f"tiny{seed}", model=model, stages=(stage,), seed=seed)
    built = build(model, base, dtype=torch.float32, seed=seed)
    values: Mapping[str, torch.Tensor] = {name: value.detach().clone() for name, value in built.trainable().items()}
    if start is not None:
        from gemma4vec.model.save.read_model import open_saved_model

        saved = open_saved_model(start, model, dtype=torch.float32, device="cpu")
        values = {name: saved.encoder.get_parameter(name).detach().clone() for name in values}
    generator = torch.Generator().manual_seed(seed)
    trained = {name: value + noise * torch.randn(value.shape, generator=generator) for name, value in values.items()}
    made_from = {"model.base": model_part("base", base)}
    lineages = [lineage_of_folder(base, None, "base")]
    if start is not None:
        made_from["model.start"] = model_part("start", start)
        lineages.append(lineage_of_folder(start, made_from["model.start"]["weights"], "start"))
    data = {
        "0-contrast": {"a": {"source": "jsonl", "path": "a.jsonl", "rows": 3, "content_hash": rows or f"{seed}" * 8}}
    }
    run = RunFolder.create(
        home,
        recipe.name,
        dump_recipe(recipe),
        recipe_id=recipe_id(recipe),
        seed=seed,
        status="finished",
        data=data,
        base={"name": "base", "licence": "apache-2.0", "terms": None, "terms_url": None, "revision": None},
        **{MADE_FROM: made_from, INHERITED: union(lineages).as_json()},
    )
    weights = save_model(
        run.model,
        recipe,
        resolve_base(str(base)),
        trained,
        data=data,
        name=run.run_id,
        dtype=dtype,
        made_from=parts_to_save(made_from),
    )
    run.update_manifest(**{WEIGHTS: weights})
    return run
