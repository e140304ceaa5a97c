"""Refuse a decoder or a suggester that cannot be trained, before any weight is loaded."""

from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.inference.load import find_model_folder
from gemma4vec.model.inverter.frame import DecoderFrame
from gemma4vec.model.suggester.suggestion_frame import SuggestionFrame
from gemma4vec.recipe import schema


def check_writer(stage: schema.Stage, built: EmbeddingModel, max_tokens: int, key: str) -> None:
    """Check base and limits of a stage whose result writes texts, and a decoder's embedder.

    `built` may be on the meta device.

    Raises:
        InputError: the base's tokenizer ends no text; the limit leaves no room for a text; there is no such
            embedder.
    """
    limit = min(stage.batch.document_tokens or max_tokens, max_tokens)
    set_by = "model.max_tokens" if limit == max_tokens else f"{key.removesuffix('.task')}.batch.document_tokens"
    if isinstance(stage.task, schema.Suggestion):
        SuggestionFrame.of(built.tokenizer, stage.task.reading, limit, set_by)
    if not isinstance(stage.task, schema.VectorToText):
        return
    DecoderFrame.of(built.tokenizer, stage.task.prefix_tokens, limit, set_by)
    named = stage.task.embedder
    try:
        find_model_folder(str(Path(named).expanduser()) if named.startswith("~") else named)
    except InputError as error:
        raise InputError(f"{key}.embedder: {error}") from None
