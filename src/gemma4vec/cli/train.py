"""`gemma4vec train RECIPE`: train a recipe, or resume a run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gemma4vec.errors import InputError
from gemma4vec.machine.memory import paused_collections


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
    job: Annotated[
        str | None,
        typer.Option(
            "--job",
            help="Go on with the run that this job began, or begin one: for jobs that a scheduler starts again.",
            metavar="NAME",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed; default: the recipe's.", min=0)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate memory, time and disk space; load no weights.")
    ] = False,
    measure_compiled: Annotated[
        bool,
        typer.Option(
            "--measure-compiled",
            help="With --dry-run: compile the layers first, which takes a minute or more, and measure them so.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Train a model from a recipe, a YAML file with data, model, objective and budget.

    With several GPUs or processes: torchrun --nproc-per-node 2 -m gemma4vec train RECIPE
    """
    with paused_collections():
        from gemma4vec.api.runs import is_first_process, load_seeded, train
        from gemma4vec.cli.output import emit
        from gemma4vec.recipe.inversion import DECODER_FILE, SUGGESTER_FILE

    if (recipe is None) == (resume is None):
        raise InputError("give exactly one of RECIPE or --resume RUN")
    if resume is not None and (overrides or seed is not None):
        raise InputError("--resume continues with the run's own recipe; to change it, start a new run")
    if resume is not None and job is not None:
        raise InputError("--resume names the run to go on with, --job finds it; give one of them")
    if measure_compiled and not dry_run:
        raise InputError("--measure-compiled is for --dry-run; a training compiles its layers by itself")
    if dry_run:
        if recipe is None:
            raise InputError("--dry-run estimates a new run; give a recipe instead of --resume")
        from gemma4vec.cli.dry_run import show_dry_run

        show_dry_run(load_seeded(recipe, overrides or [], seed), as_json, measure_compiled=measure_compiled)
        return
    run = train(recipe, overrides, resume=resume, seed=seed, out=out, job=job).run_folder
    if not is_first_process():
        return
    # A disk that took no events has none.
    finished = next(reversed(run.events("finished")), {})
    result: dict[str, Any] = {
        "run": str(run.path),
        "run_id": run.run_id,
        "model": str(run.model),
        "tokens": finished.get("tokens"),
        "seconds": finished.get("seconds"),
        "ended": run.manifest["ended"],
    }
    ended = result["ended"]
    reason = f"ended by the {ended['by']}{': ' + ended['reason'] if 'reason' in ended else ''}"
    made, then = "model", f"gemma4vec eval {run.path} --suite DIR"
    if (run.model / DECODER_FILE).is_file():
        made, then = "decoder", f'gemma4vec invert MODEL --decoder {run.path} --text "..."'
    if (run.model / SUGGESTER_FILE).is_file():
        made, then = "suggester", f'gemma4vec suggest {run.path} --query "..."'
    emit(as_json, result, lambda _: f"{reason}\n{made}: {run.model}\nnext: {then}")
