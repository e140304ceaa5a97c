"""Which task a stage trains, and on which rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gemma4vec.data.batching.mixture import MixedRows
from gemma4vec.data.batching.plain_texts import texts_of_rows, unique_texts
from gemma4vec.data.loading.load_rows import PlainTexts, TrainingData, load_sources
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.recipe import schema
from gemma4vec.training.engine.task import Task
from gemma4vec.training.tasks.contrastive import ContrastTask
from gemma4vec.training.tasks.masked_next_token import MaskedNextTokenTask
from gemma4vec.training.tasks.pretokenized_rows import pretokenize_rows
from gemma4vec.training.tasks.row_reader import RowReader
from gemma4vec.training.tasks.suggestion import SuggestionTask
from gemma4vec.training.tasks.ul2 import Ul2Task
from gemma4vec.training.tasks.vector_to_text import VectorToTextTask
from gemma4vec.training.terms.teachers import named_teachers
from gemma4vec.training.writing.suggestion_pairs import pairs_of
from gemma4vec.training.writing.text_vectors import embedded_texts


def load_stage_data(stage: schema.Stage, *, sample: bool = False) -> TrainingData:
    """Read the sources of a stage, without the few rows that have too few hard negatives for it.

    With `sample`, sources that take minutes to build are sampled where they are not built yet.

    Raises:
        InputError: as `data.loading.load_rows.load_sources`.
    """
    wanted = stage.task.hard_negatives if isinstance(stage.task, schema.Contrast) else 0
    return load_sources(stage.data, stage.mixture, hard_negatives=wanted, sample=sample)


def make_task(
    stage: schema.Stage,
    loaded: TrainingData,
    built: EmbeddingModel,
    head: Callable[[], LanguageModelHead],
    *,
    max_tokens: int,
    seed: int,
    start: str | None = None,
    pretokenize: bool = True,
    vector_width: int | None = None,
) -> Task:
    """The task of a stage on its data.

    Args:
        stage: the recipe's.
        loaded: its data.
        built: the model.
        head: loads the base's language-model head, for a task that needs it.
        max_tokens: the model's limit.
        seed: of the rows' order.
        start: folder of the model that the run starts from, for `teacher: start`.
        pretokenize: whether rows are tokenized here, where the stage says so (`batch.tokenize`); else a text is
            tokenized whenever it is drawn.
        vector_width: dimensions of random vectors that stand for the texts' in vector_to_text, where only time and
            memory matter; None: the embedder is opened and embeds them.
    """
    if isinstance(stage.task, schema.MaskedNextToken):
        texts = plain_texts(loaded, stage.task)
        return MaskedNextTokenTask.make(stage, stage.task, texts, built, head(), max_tokens=max_tokens, seed=seed)
    if isinstance(stage.task, schema.Ul2):
        texts = plain_texts(loaded, stage.task)
        return Ul2Task.make(stage, stage.task, texts, built, head(), max_tokens=max_tokens, seed=seed)
    if isinstance(stage.task, schema.VectorToText):
        embedded = embedded_texts(plain_texts(loaded, stage.task), stage.task, vector_width)
        return VectorToTextTask.make(stage, stage.task, embedded, built, head(), max_tokens=max_tokens, seed=seed)
    if isinstance(stage.task, schema.Suggestion):
        pairs = pairs_of(loaded.rows)
        return SuggestionTask.make(stage, stage.task, pairs, built, head(), max_tokens=max_tokens, seed=seed)
    task = named_teachers(stage.task, start)
    stage = stage.model_copy(update={"task": task})
    rows = loaded.rows
    if pretokenize and stage.batch.tokenize == "once" and isinstance(rows, MixedRows):
        reader, reserved = RowReader.of(stage, built, max_tokens), built.encoder.readout.reserved
        rows = pretokenize_rows(
            rows,
            {name: _rows_identity(facts, task.hard_negatives) for name, facts in loaded.sources.items()},
            built.tokenizer,
            reader.recipe_prompts,
            query_tokens=max(1, reader.query_tokens - reserved),
            document_tokens=max(1, reader.document_tokens - reserved),
        )
    return ContrastTask.make(stage, rows, built, max_tokens=max_tokens, seed=seed, head=head)


def _rows_identity(facts: Mapping[str, Any], hard_negatives: int) -> str:
    """Hash of the rows of a source that a stage trains on."""
    content = str(facts["content_hash"])
    return f"{content}:{hard_negatives} negatives" if facts.get("left_out") else content


def data_seed(recipe: schema.Recipe, number: int) -> int:
    """Seed of the rows' order in a stage.

    It counts stages of the same kind, so that recipes with and without an adaptation before their contrast see the same
    rows in the same order.
    """
    kind = recipe.stages[number].task.kind
    return recipe.seed + sum(stage.task.kind == kind for stage in recipe.stages[:number])


def plain_texts(loaded: TrainingData, task: schema.MaskedNextToken | schema.Ul2 | schema.VectorToText) -> Sequence[str]:
    """Every text once, in the order of the data."""
    if isinstance(loaded.texts, PlainTexts) and isinstance(loaded.rows, MixedRows):
        return unique_texts(loaded.texts.rows, loaded.rows, task.texts)
    return list(dict.fromkeys([*loaded.texts, *texts_of_rows(loaded.rows, task.texts)]))
