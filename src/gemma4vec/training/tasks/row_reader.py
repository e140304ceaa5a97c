"""The texts of rows as tokens: with the prompts of their source, within the limits of the stage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gemma4vec.model.encoder.build import EmbeddingModel, resolve_prompts
from gemma4vec.model.packing.packed_batch import Tokens
from gemma4vec.recipe import schema
from gemma4vec.text.prompts import Document, Prompted, Prompts


@dataclass(frozen=True)
class RowReader:
    """Tokenizes queries and documents.

    Attributes:
        encode: prompted texts and a limit to tokens, as the readout prepares them.
        prompts: the model's.
        source_prompts: those of sources that have their own, by name.
        query_tokens: longest query, prompt and special tokens included.
        document_tokens: longest document.
    """

    encode: Callable[[Sequence[Prompted], int], list[Tokens]]
    prompts: Prompts
    source_prompts: Mapping[str, Prompts]
    query_tokens: int
    document_tokens: int

    @classmethod
    def of(cls, stage: schema.Stage, built: EmbeddingModel, max_tokens: int) -> "RowReader":
        """As a stage asks for; `max_tokens` is the model's limit."""
        return cls(
            encode=built.read,
            prompts=built.prompts,
            source_prompts={
                source.name: resolve_prompts(source.prompts) for source in stage.data if source.prompts is not None
            },
            query_tokens=min(stage.batch.query_tokens or max_tokens, max_tokens),
            document_tokens=min(stage.batch.document_tokens or max_tokens, max_tokens),
        )

    def recipe_prompts(self, source: str) -> Prompts:
        """The prompts of a source."""
        return self.source_prompts.get(source, self.prompts)

    def queries(self, texts: Sequence[str], prompts: Sequence[Prompts]) -> list[Tokens]:
        """The tokens of queries, each with its prompts."""
        prompted = [own.for_query(text) for own, text in zip(prompts, texts, strict=True)]
        return self.encode(prompted, self.query_tokens)

    def documents(self, documents: Sequence[Document], prompts: Sequence[Prompts]) -> list[Tokens]:
        """The tokens of documents, each with its prompts."""
        prompted = [own.for_document(document) for own, document in zip(prompts, documents, strict=True)]
        return self.encode(prompted, self.document_tokens)
