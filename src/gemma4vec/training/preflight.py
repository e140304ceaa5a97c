"""Refuse what cannot be trained before any weight is loaded, in real runs and dry runs alike."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gemma4vec.data.batching.epoch_order import check_batches
from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.data.rows.lazy_rows import as_lazy_rows
from gemma4vec.errors import InputError
from gemma4vec.machine.device import choose_device
from gemma4vec.model.backbone.architectures import text_config
from gemma4vec.model.backbone.kernel_options import fast_paths
from gemma4vec.model.encoder.check_config import check_recipe, read_config
from gemma4vec.model.readout import READOUTS
from gemma4vec.model.save.output_dimension import recipe_dimension
from gemma4vec.model.tokenize.tokenizer import load_tokenizer
from gemma4vec.recipe import schema
from gemma4vec.training.monitoring.dev_suite import dev_folder, open_dev_suite
from gemma4vec.training.tasks.make_task import plain_texts
from gemma4vec.training.tasks.masked_next_token import mask_token_id
from gemma4vec.training.terms.checks import check_scores, check_terms
from gemma4vec.training.terms.teachers import check_teachers


def refuse_early(recipe: schema.Recipe, base: Path, loaded: Sequence[TrainingData]) -> None:
    """Check what can be known without weights: readout and base, rows and batches, dimension, teachers, mask token.

    Raises:
        InputError: one line that names the recipe's key.
    """
    config = read_config(base)
    check_recipe(recipe.model, config)
    fast_paths(choose_device().name, recipe.stages[0].layout.fast_paths)
    dimension = recipe_dimension(recipe.model, config)
    for number, (stage, data) in enumerate(zip(recipe.stages, loaded, strict=True)):
        check_dev_suite(stage.evaluation, data.dev_suite, f"stages.{number}.evaluation")
        check_data(number, stage, data)
        if isinstance(stage.task, schema.Contrast) and dimension is not None:
            check_terms(stage.task, dimension, f"stages.{number}.task")
            check_teachers(stage.task, dimension, f"stages.{number}.task")
        check_given_tokens(recipe.model, base, number, stage, data)
    check_tokenizer(recipe.stages, base)


def check_dev_suite(settings: schema.Evaluation, dev: Path | None, key: str) -> None:
    """Refuse a final suite for evaluations during training: it could not test a checkpoint that it helped to choose.

    The background evaluation and the stop rule refuse it themselves.

    Raises:
        InputError: the suite, or the one that it is sampled from, is final: by its role or by the ledger.
    """
    folder = dev_folder(settings, dev)
    inside = (settings.every_steps is not None or settings.at_shares) and not settings.background
    if inside and folder is not None:
        open_dev_suite(folder, settings.max_queries, settings.max_documents, f"{key}.suite")


def check_data(number: int, stage: schema.Stage, loaded: TrainingData) -> None:
    """Refuse data that the task of stage `number` cannot be trained on.

    Raises:
        InputError: fewer rows or texts than a batch, or rows with fewer hard negatives than the recipe needs.
    """
    where = f"stages.{number}"
    if isinstance(stage.task, schema.MaskedNextToken):
        texts = len(plain_texts(loaded, stage.task))
        if texts < stage.batch.rows:
            raise InputError(f"{where}.batch.rows: {stage.batch.rows} texts asked for, the data has {texts}")
        return
    rows, wanted = loaded.rows, stage.task.hard_negatives
    if len(rows) < stage.batch.rows:
        raise InputError(
            f"{where}.batch.rows: {stage.batch.rows} rows asked for, the data has {len(rows)}; use a smaller batch"
        )
    check_batches(rows, stage.batch.rows, f"{where}.mixture")
    check_scores(stage.task, rows, f"{where}.task")
    if not wanted:
        return
    counts = as_lazy_rows(rows).negative_counts()
    fewer = np.flatnonzero(counts < wanted)
    if len(fewer):
        first = rows[int(fewer[0])]
        raise InputError(
            f"{where}.task.hard_negatives: {wanted} asked for, {len(fewer):,} of {len(rows):,} rows have fewer, "
            f"first row {fewer[0] + 1} ({first.query[:40]!r}) with {len(first.neg)}; every row has {counts.min()}: "
            "use at most that, or mine more"
        )


def check_given_tokens(model: schema.Model, base: Path, number: int, stage: schema.Stage, loaded: TrainingData) -> None:
    """Refuse token ids in place of texts if the model lacks such ids, or its readout needs the texts.

    Raises:
        InputError: one line that names the source.
    """
    given = {name: facts["largest_token"] for name, facts in loaded.sources.items() if "largest_token" in facts}
    needs_texts = "context" in READOUTS[model.readout.name].needs
    if needs_texts and (given or stage.batch.tokenize == "once"):
        what = f"source {next(iter(given))!r} has tokens" if given else "batch.tokenize: once keeps tokens"
        raise InputError(f"stages.{number}: {what}, and model.readout {model.readout.name} reads texts; use another")
    vocabulary = int(text_config(base).vocab_size) if given else 0
    for name, largest in given.items():
        if largest >= vocabulary:
            raise InputError(
                f"stages.{number}.data: source {name!r} has token id {largest}, the vocabulary of {model.base} ends at "
                f"{vocabulary - 1}; its tokens were made for another base"
            )


def check_tokenizer(stages: Sequence[schema.Stage], base: Path) -> None:
    """Refuse a mask token that the base's tokenizer lacks.

    Raises:
        InputError: one line that names the recipe's key, the token, and similar ones.
    """
    wanted = {n: stage.task for n, stage in enumerate(stages) if isinstance(stage.task, schema.MaskedNextToken)}
    if not wanted:
        return
    vocabulary = load_tokenizer(base, append_eos=False).hf_tokenizer.get_vocab()
    for number, task in wanted.items():
        mask_token_id(vocabulary, task.mask_token, f"stages.{number}.task.mask_token")
