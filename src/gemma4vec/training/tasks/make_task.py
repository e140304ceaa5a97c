"""Which task a stage trains."""

from collections.abc import Callable, Sequence

from gemma4vec.data.batching.mixture import MixedRows
from gemma4vec.data.batching.plain_texts import texts_of_rows, unique_texts
from gemma4vec.data.loading.load_rows import PlainTexts, TrainingData
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.recipe import schema
from gemma4vec.training.engine.task import Task
from gemma4vec.training.tasks.contrastive import ContrastTask
from gemma4vec.training.tasks.masked_next_token import MaskedNextTokenTask
from gemma4vec.training.tasks.pretokenized_rows import tokenised_rows


def make_task(
    stage: schema.Stage,
    loaded: TrainingData,
    built: EmbeddingModel,
    head: Callable[[], LanguageModelHead],
    *,
    max_tokens: int,
    seed: int,
    say: Callable[[str], None] | None = None,
) -> Task:
    """The task of a stage on its data; `head` gives the base's language-model head to a task that needs it.

    Where the stage tokenises once, that is done now, if `say` is there to be told; the texts are read otherwise.
    """
    remark = say or (lambda line: None)
    if isinstance(stage.task, schema.Contrast):
        task = ContrastTask(stage, loaded.rows, built, max_tokens=max_tokens, seed=seed, say=remark)
        if stage.batch.tokenize == "once" and say is not None and isinstance(loaded.rows, MixedRows):
            reserved = built.encoder.readout.reserved
            task.rows = tokenised_rows(
                loaded.rows,
                {name: facts["content_hash"] for name, facts in loaded.sources.items()},
                built.tokeniser,
                lambda name: task.source_prompts.get(name, task.prompts),
                query_tokens=max(1, task.query_tokens - reserved),
                document_tokens=max(1, task.document_tokens - reserved),
                say=say,
            )
        return task
    texts = plain_texts(loaded, stage.task)
    return MaskedNextTokenTask(stage, stage.task, texts, built, head(), max_tokens=max_tokens, seed=seed, say=remark)


def data_seed(recipe: schema.Recipe, number: int) -> int:
    """Seed of the rows' order in a stage: it counts stages of its own kind alone, so that recipes with and without an
    adaptation before their contrast see the same rows in the same order."""
    kind = recipe.stages[number].task.kind
    return recipe.seed + sum(stage.task.kind == kind for stage in recipe.stages[:number])


def plain_texts(loaded: TrainingData, task: schema.MaskedNextToken) -> Sequence[str]:
    """Every text once, in the order of the data."""
    if isinstance(loaded.texts, PlainTexts) and isinstance(loaded.rows, MixedRows):
        return unique_texts(loaded.texts.rows, loaded.rows, task.texts)
    return list(dict.fromkeys([*loaded.texts, *texts_of_rows(loaded.rows, task.texts)]))
