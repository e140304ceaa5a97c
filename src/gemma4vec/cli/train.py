"""`gemma4vec train RECIPE`: train a recipe, or resume a run."""

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
        typer.Argument(
            help="Changes to the recipe, such as stages.0.batch.rows=64.", metavar="KEY=VALUE", show_default=False
        ),
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Continue this run (folder, id or latest).", metavar="RUN")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Parent of the run folder; default $GEMMA4VEC_HOME.", metavar="DIR")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed; default: the recipe's.", min=0)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate memory, time and disk space; load no weights.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Train a model from a recipe, a YAML file with data, model, objective and budget.

    With several GPUs or processes: torchrun --nproc-per-node 2 -m gemma4vec train RECIPE
    """
    from gemma4vec.cli.output import emit
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import find_run
    from gemma4vec.recipe.load import load_recipe

    if (recipe is None) == (resume is None):
        raise InputError("give exactly one of RECIPE or --resume RUN")
    first = True
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dry_run:
        from gemma4vec.training.engine.distributed import join_world

        first = join_world().first
    if resume is not None:
        if dry_run:
            raise InputError("--dry-run estimates a new run; give a recipe instead of --resume")
        if overrides or seed is not None:
            raise InputError("--resume continues with the run's own recipe; to change it, start a new run")
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
    reason = f"ended by the {ended['by']}{': ' + ended['reason'] if 'reason' in ended else ''}"
    emit(as_json, result, lambda _: f"{reason}\nmodel: {model}\nnext: gemma4vec eval {run.path} --suite DIR")
