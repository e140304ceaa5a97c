"""Refuse what cannot be trained before any weight is loaded, in real runs and dry runs alike."""

from collections.abc import Sequence
from pathlib import Path

import torch

from gemma4vec.data.batching.batches import check_rows
from gemma4vec.data.batching.epoch_order import check_batches
from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.errors import InputError
from gemma4vec.machine.device import choose_device
from gemma4vec.model.adapters.fake_quantize import quantized_grids
from gemma4vec.model.backbone.architectures import text_config
from gemma4vec.model.backbone.kernel_options import fast_paths
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.encoder.check_config import check_positions, read_config
from gemma4vec.model.encoder.outline import outline_encoder
from gemma4vec.model.readout import READOUTS
from gemma4vec.model.save.output_dimension import recipe_dimension
from gemma4vec.model.tokenize.tokenizer import TextTokenizer
from gemma4vec.recipe import schema
from gemma4vec.training.batches.text_batches import hold_out
from gemma4vec.training.monitoring.dev_suite import dev_folder, needed_dev_folder, open_dev_suite
from gemma4vec.training.tasks.check_clusters import check_cluster_model, check_clusters
from gemma4vec.training.tasks.check_limits import check_limits
from gemma4vec.training.tasks.denoising_checks import check_denoising, check_lengths
from gemma4vec.training.tasks.make_task import plain_texts
from gemma4vec.training.tasks.masked_next_token import mask_token_id
from gemma4vec.training.tasks.row_reader import RowReader
from gemma4vec.training.tasks.rows_without_signal import check_rows_teach
from gemma4vec.training.terms.checks import check_dropout, check_scores, check_terms
from gemma4vec.training.terms.reconstruct import check_reconstruct
from gemma4vec.training.terms.teachers import check_teachers, named_teachers
from gemma4vec.training.writing.check_writer import check_writer
from gemma4vec.training.writing.suggestion_pairs import check_split, pairs_of
from gemma4vec.training.writing.text_vectors import split_texts


def check_base(
    recipe: schema.Recipe, base: Path, dtype: torch.dtype = torch.bfloat16, *, ids_alone: bool = False
) -> EmbeddingModel:
    """Check what can be known without weights and rows: base, adapters, readout, dimension, limits, teachers, tokens.

    Args:
        recipe: the recipe.
        base: folder of its base; config and tokenizer are enough.
        dtype: dtype of the result, for those who count bytes.
        ids_alone: the result's tokenizer will not be saved.

    Returns:
        The recipe's model on the meta device, with its real tokenizer.

    Raises:
        InputError: one line that names the recipe's key.
    """
    built = outline_encoder(recipe.model, base, dtype, ids_alone=ids_alone)
    config = read_config(base)
    check_positions(recipe.model.max_tokens, config)
    check_limits(recipe, built)
    fast_paths(choose_device().name, recipe.stages[0].layout.fast_paths)
    dimension = recipe_dimension(recipe.model, config)
    for number, stage in enumerate(recipe.stages):
        if isinstance(stage.task, schema.Contrast):
            check_dropout(stage, built.encoder, f"stages.{number}.")
            check_reconstruct(stage, built, f"stages.{number}.")
            if dimension is not None:
                check_terms(stage.task, dimension, f"stages.{number}.task")
                where = f"stages.{number}.task"
                check_teachers(named_teachers(stage.task, recipe.model.start, where), dimension, where)
        check_cluster_model(stage, f"stages.{number}")
        check_denoising(stage, built, recipe.model.max_tokens, f"stages.{number}.task")
        check_writer(stage, built, recipe.model.max_tokens, f"stages.{number}.task")
    check_mask_tokens(recipe.stages, built.tokenizer)
    check_quantization(recipe.stages, built)
    return built


def check_stages(recipe: schema.Recipe, base: Path, loaded: Sequence[TrainingData], built: EmbeddingModel) -> None:
    """Check the rows of all stages against the recipe and the model (result of `check_base`).

    Raises:
        InputError: one line that names the recipe's key.
    """
    for number, (stage, data) in enumerate(zip(recipe.stages, loaded, strict=True)):
        where = f"stages.{number}"
        check_dev_suite(stage.evaluation, data.dev_suite, f"{where}.evaluation")
        check_data(number, stage, data)
        check_clusters(stage, data, where)
        if isinstance(stage.task, schema.Ul2):
            limit = min(stage.batch.document_tokens or recipe.model.max_tokens, recipe.model.max_tokens)
            check_lengths(plain_texts(data, stage.task), built, limit, f"{where}.data")
        reader = RowReader.of(stage, built, recipe.model.max_tokens)
        check_rows_teach(stage, data.rows, reader.recipe_prompts, built.encoder.has_dropout, where)
        check_given_tokens(recipe.model, base, number, stage, data)


def check_dev_suite(settings: schema.Evaluation, dev: Path | None, key: str) -> None:
    """Refuse a final suite for evaluations during training: it could not test a checkpoint that it helped to choose.

    The background evaluation and the stop rule refuse it themselves.

    Raises:
        InputError: no suite; or it, or the one that it is sampled from, is final: by its role or by the ledger.
    """
    if settings.every_steps is None and dev_folder(settings, dev) is None:
        return  # a matrix has suites of its own for at_shares
    folder = needed_dev_folder(settings, dev, key)
    if folder is not None:
        open_dev_suite(folder, settings.max_queries, settings.max_documents, f"{key}.suite")


def check_data(number: int, stage: schema.Stage, loaded: TrainingData) -> None:
    """Refuse data that the task of stage `number` cannot be trained on.

    Raises:
        InputError: fewer rows or texts than a batch, or rows with fewer hard negatives than the recipe needs.
    """
    where = f"stages.{number}"
    if isinstance(stage.task, schema.Suggestion):
        check_split(pairs_of(loaded.rows), stage.task.held_out, stage.batch.rows, where)
        return
    if not isinstance(stage.task, schema.Contrast):
        texts = plain_texts(loaded, stage.task)
        if isinstance(stage.task, schema.Ul2):
            texts = hold_out(texts, stage.task.held_out)[0]
        if isinstance(stage.task, schema.VectorToText):
            texts = split_texts(texts, stage.task.held_out)[0]
        if len(texts) < stage.batch.rows:
            raise InputError(f"{where}.batch.rows: {stage.batch.rows} texts asked for, the data has {len(texts)}")
        return
    check_rows(loaded.rows, size=stage.batch.rows, hard_negatives=stage.task.hard_negatives, where=f"{where}.")
    check_batches(loaded.rows, stage.batch.rows, f"{where}.mixture")
    check_scores(stage.task, loaded.rows, f"{where}.task")


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


def check_quantization(stages: Sequence[schema.Stage], built: EmbeddingModel) -> None:
    """Refuse a quantization scheme that does not fit a matrix of the model.

    Raises:
        InputError: one line that names the recipe's key and the matrix.
    """
    for number, stage in enumerate(stages):
        if stage.quantize is not None:
            try:
                quantized_grids(built.encoder.backbone, built.encoder.head_layers, stage.quantize.scheme)
            except InputError as error:
                raise InputError(f"stages.{number}.quantize: {error}") from error


def check_mask_tokens(stages: Sequence[schema.Stage], tokenizer: TextTokenizer) -> None:
    """Refuse a mask token that the base's tokenizer lacks.

    Raises:
        InputError: one line that names the recipe's key, the token, and similar ones.
    """
    wanted = {n: stage.task for n, stage in enumerate(stages) if isinstance(stage.task, schema.MaskedNextToken)}
    vocabulary = tokenizer.hf_tokenizer.get_vocab() if wanted else {}
    for number, task in wanted.items():
        mask_token_id(vocabulary, task.mask_token, f"stages.{number}.task.mask_token")
