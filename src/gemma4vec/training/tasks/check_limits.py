"""Refuse limits under which training would read no text: prompts and special tokens that fill them."""

from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.encoder.check_config import check_prompts
from gemma4vec.recipe import schema
from gemma4vec.recipe.sources import TensorsSource
from gemma4vec.text.prompts import Prompts
from gemma4vec.training.tasks.row_reader import RowReader


def check_limits(recipe: schema.Recipe, built: EmbeddingModel) -> None:
    """Check the finished model's limit, and those of every stage with the prompts of its sources.

    Args:
        recipe: the recipe.
        built: its model; on the meta device is enough.

    Raises:
        InputError: the key, the prompt, its tokens and the limit.
    """
    if isinstance(recipe.stages[0].task, schema.WRITERS):
        return  # it reads no prompt; `training.writing.check_writer` checks its limit
    longest, reserved = recipe.model.max_tokens, built.encoder.readout.reserved
    check_prompts(built.tokenizer, built.prompts, longest - reserved, "model.max_tokens")
    for number, stage in enumerate(recipe.stages):
        reader = RowReader.of(stage, built, longest)
        key = f"stages.{number}.batch"
        if not isinstance(stage.task, schema.Contrast):
            check_prompts(built.tokenizer, Prompts(), reader.document_tokens, f"{key}.document_tokens")
            continue
        for source in stage.data:
            if isinstance(source, TensorsSource):
                continue  # its tokens have no prompts
            prompts = reader.recipe_prompts(source.name)
            check_prompts(built.tokenizer, prompts, reader.query_tokens - reserved, f"{key}.query_tokens", "query")
            check_prompts(
                built.tokenizer, prompts, reader.document_tokens - reserved, f"{key}.document_tokens", "document"
            )
