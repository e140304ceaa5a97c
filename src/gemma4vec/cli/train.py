"""`gemma4vec train RECIPE`: train what a recipe describes, or go on with a run."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from gemma4vec.errors import InputError


def train_command(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="Recipe file (YAML), or the name of a shipped one.",
            metavar="RECIPE",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to it, such as stages.0.batch.rows=64.", metavar="KEY=VALUE", show_default=False),
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Go on with this run (folder, id or latest).", metavar="RUN")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the run folder; default $GEMMA4VEC_HOME.", metavar="DIR")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed, instead of the recipe's.", min=0)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what the run would take, without loading weights.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Train what a recipe describes: data, model, objective and budget all stand in it.

    On several GPUs or processes: torchrun --nproc-per-node 2 -m gemma4vec train RECIPE
    """
    from gemma4vec.api.runs import train
    from gemma4vec.cli.output import emit

    if (recipe is None) == (resume is None):
        raise InputError("give exactly one of RECIPE and --resume RUN")
    if resume is not None and (overrides or seed is not None):
        raise InputError("--resume goes on with the recipe as it was; start a new run to change it")
    if dry_run:
        if recipe is None:
            raise InputError("--dry-run estimates a run that has not begun; give its recipe, not --resume")
        from gemma4vec.cli.dry_run import show_dry_run
        from gemma4vec.recipe.load import load_recipe

        seeded = [f"seed={seed}"] if seed is not None else []
        show_dry_run(load_recipe(recipe, [*(overrides or []), *seeded]), as_json)
        return
    first = True
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from gemma4vec.training.engine.distributed import join_world

        first = join_world().first
    run = train(recipe, overrides, resume=resume, seed=seed, out=out).run_folder
    if not first:
        return
    finished = run.events("finished")[-1]
    result: dict[str, Any] = {
        "run": str(run.path),
        "run_id": run.run_id,
        "model": str(run.model),
        "tokens": finished["tokens"],
        "seconds": finished["seconds"],
        "ended": run.manifest["ended"],
    }
    ended = result["ended"]
    said = f"ended by the {ended['by']}{': ' + ended['reason'] if 'reason' in ended else ''}"
    emit(as_json, result, lambda _: f"{said}\nmodel: {run.model}\nnext: gemma4vec eval {run.path} --suite DIR")
