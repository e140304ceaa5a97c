"""Train a finished model for a quantization grid: an ordinary run that starts from it, and a copy of its result."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.export.export_model import check_out
from gemma4vec.files import atomic_folder, refuse_overwriting, sha256_text
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.model.adapters.schemes import check_scheme
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.save.quantization import quantized_bytes, saved_grids, scheme_of
from gemma4vec.model.save.read_model import read_settings
from gemma4vec.pipeline.quantize.quantize_model import QuantizedModel, find_saved_model, open_checked
from gemma4vec.recipe.load import dump_recipe, load_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.job import current_job
from gemma4vec.training.prepare_run import check_inputs
from gemma4vec.training.run import find_job_run, start_run, train_run

logger = logging.getLogger(__name__)


def quantizing_recipe(recipe: str | Path | Recipe, model: Path, scheme: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe with `model.start`, and with the scheme in its stages that quantize; in its last one if none does.

    Raises:
        InputError: as `load_recipe`; the recipe quantizes by another scheme.
    """
    plain = load_recipe(recipe, [f"model.start={model}", *overrides])
    numbers = [number for number, stage in enumerate(plain.stages) if stage.quantize is not None]
    chosen = numbers or [len(plain.stages) - 1]
    return load_recipe(plain, [f"stages.{number}.quantize={{scheme: {scheme}}}" for number in chosen])


def train_quantized(
    model: str | Path,
    scheme: str,
    recipe: str | Path | Recipe,
    out: Path,
    *,
    runs: Path | None = None,
    resume: Path | None = None,
    dev: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
) -> QuantizedModel:
    """Train a model for a scheme's grids, and copy the result to `out` after reading it back.

    The same call goes on with a training that was killed, and copies one that is finished.

    Args:
        model: run folder, run id, `latest`, or a folder that gemma4vec saved: the start, and the teacher of a term with
            `teacher: start`.
        scheme: a key of `SCHEMES`.
        recipe: a file, a shipped recipe's name or a recipe; `quantizing_recipe` sets start and scheme.
        out: the new folder; an earlier model of ours there is replaced.
        runs: parent of the run's folder; None: the outputs' home.
        resume: a run of this training to go on with; None: the one that the same call began, or a new one.
        dev: suites to score before and after; each is a look that the ledger records.
        overrides: changes to the recipe, as typed.

    Raises:
        InputError: as training and `quantize_model`.
        WorkError: the training failed, or its model is not on the grid; `out` is as it was.
        Interrupted: a signal stopped the training; the same call goes on with it.
    """
    check_scheme(scheme)
    source = find_saved_model(str(model))
    settings = read_settings(source)
    if (before := scheme_of(settings)) is not None:
        raise InputError(f"{source} is quantized already, as {before}; train the model that it was made from")
    check_out(out)
    refuse_overwriting([out], [source])
    suites = [open_suite(str(spec)) for spec in dev]
    check_choice("--dev", *suites)
    whole = quantizing_recipe(recipe, source, scheme, overrides)
    run = _train(whole, out, runs, RunFolder.open(resume) if resume is not None else None)
    grids = saved_grids(run.model, scheme)
    with atomic_folder(out) as temporary:
        shutil.copytree(run.model, temporary, dirs_exist_ok=True)
        quantized = open_checked(temporary, scheme)
        comparisons = [
            compare(evaluate(quantized, suite, run=run), evaluate(CachedEmbedder(Embedder.load(source)), suite))
            for suite in suites
        ]
    name = str(settings.get("name", source.name))
    size = quantized_bytes(grids)
    return QuantizedModel(out, scheme, name, True, len(grids), size, run=run.path, comparisons=comparisons)


def _train(recipe: Recipe, out: Path, runs: Path | None, run: RunFolder | None) -> RunFolder:
    """The finished run: an earlier one of the same call, continued if it was cut off, or a new one."""
    job = current_job(f"quantize-{sha256_text(str(out.resolve()), dump_recipe(recipe))[:16]}")
    assert job is not None  # it has a name
    begun = run or find_job_run(job, recipe, runs)
    if begun is None:
        checked = check_inputs(recipe)
        begun = start_run(recipe, runs, job)
        logger.info(f"run folder: {begun.path}")
        train_run(begun, recipe, checked)
    elif begun.manifest.get("status") != "finished":
        logger.info(f"going on with {begun.path}")
        train_run(begun)
    return begun
