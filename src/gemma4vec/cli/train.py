"""`gemma4vec train RECIPE`: train what a recipe describes, or go on with a run."""

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from gemma4vec.errors import InputError

logger = logging.getLogger(__name__)


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
    from gemma4vec.cli.output import emit
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import find_run
    from gemma4vec.recipe.load import load_recipe

    if (recipe is None) == (resume is None):
        raise InputError("give a recipe to start, or --resume RUN to go on, not both and not neither")
    first = True
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dry_run:
        from gemma4vec.training.engine.distributed import join_world

        first = join_world().first
    if resume is not None:
        if dry_run:
            raise InputError("--dry-run estimates a run that has not begun; give its recipe, not --resume")
        if overrides or seed is not None:
            raise InputError("--resume goes on with the recipe as it was; start a new run to change it")
        run = find_run(resume, out or home())
        if run.manifest.get("status") == "finished":
            raise InputError(f"{run.path} is finished; its model is in {run.model}")
    else:
        assert recipe is not None
        changes = [*(overrides or []), *([f"seed={seed}"] if seed is not None else [])]
        loaded = load_recipe(recipe, changes)
        if dry_run:
            from gemma4vec.cli.dry_run import show_dry_run

            show_dry_run(loaded, as_json)
            return
        from gemma4vec.training.run import start_run

        run = start_run(loaded, out)
    if first:
        logger.info(f"run folder: {run.path}")
    from gemma4vec.training.run import train_run

    model = train_run(run)
    if not first:
        return
    finished = run.events("finished")[-1]
    result: dict[str, Any] = {
        "run": str(run.path),
        "run_id": run.run_id,
        "model": str(model),
        "tokens": finished["tokens"],
        "seconds": finished["seconds"],
        "ended": run.manifest["ended"],
    }
    ended = result["ended"]
    said = f"ended by the {ended['by']}{': ' + ended['reason'] if 'reason' in ended else ''}"
    emit(as_json, result, lambda _: f"{said}\nmodel: {model}\nnext: gemma4vec eval {run.path} --suite DIR")
