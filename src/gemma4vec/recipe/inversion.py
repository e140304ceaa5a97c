"""The recipe's words for models that write texts: decoders of vectors, and suggesters of other queries."""

from typing import Literal

from pydantic import Field

from gemma4vec.recipe.part import Part

# The file that makes a folder a decoder's (`model.inverter.decoder_folder`).
DECODER_FILE = "decoder.json"


class VectorToText(Part):
    """A decoder from vectors to texts: a causal base predicts a text after soft tokens made of the text's vector.

    The base and its adapters are `model`'s; `attention` is causal. The vectors are a finished model's (`embedder`),
    which stays as it is. A batch's `rows` are texts. The result is a decoder folder, not an embedding model.
    """

    kind: Literal["vector_to_text"] = "vector_to_text"
    embedder: str = Field(description="the model whose vectors are turned back into texts: a run, a folder or a name")
    role: Literal["query", "document"] = Field(
        "query", description="whose prompt the texts are embedded with, and which texts of rows are used"
    )
    prefix_tokens: int = Field(8, ge=1, le=256, description="number of soft tokens that a vector becomes")
    prefix_hidden: int | None = Field(
        None, ge=1, description="hidden width of the layers that make them; null: the base's width"
    )
    noise_degrees: float = Field(
        8.0, ge=0, lt=90, description="a vector is turned by an angle between 0 and this, in a random direction"
    )
    mix_share: float = Field(
        0.2, ge=0, le=1, description="share of vectors that lie between two texts' and stand for the nearer one's"
    )
    sampled_vocabulary: int | None = Field(
        8192,
        ge=1,
        description="number of tokens drawn for a batch's softmax, beside its own; null: the whole vocabulary",
    )
    learning_rate: float | None = Field(
        None, gt=0, lt=1, description="peak of the soft tokens' own schedule; null: the stage's `learning_rate`"
    )
    held_out: int = Field(
        2000, ge=0, le=100_000, description="texts that are never trained on, at most a tenth: their loss is logged"
    )
    keep_texts: int = Field(
        50_000,
        ge=0,
        description="training texts stored with the decoder at most, with vectors, to name a vector's nearest; 0: none",
    )

    @property
    def texts(self) -> Literal["queries", "documents"]:
        """Which texts of rows are used."""
        return "queries" if self.role == "query" else "documents"


# The file that makes a folder a suggester's (`model.suggester.suggester_folder`).
SUGGESTER_FILE = "suggester.json"


class Reading(Part):
    """What a suggester reads before it writes."""

    query_tokens: int = Field(32, ge=1, le=512, description="longest query; the rest is cut")
    titles: int = Field(3, ge=0, le=20, description="titles of the query's first hits that are read, at most")
    title_tokens: int = Field(16, ge=1, le=512, description="longest title; the rest is cut")


class Suggestion(Part):
    """A suggester: a causal base writes another query for a query and the titles of its first hits.

    Rows are pairs: `query`, and positives whose text is another query; a positive's title holds the titles of the
    query's first hits, one a line; `group` names the document that the pair was made for. `gemma4vec fanout --pairs`
    writes them. The base and its adapters are `model`'s; `attention` is causal. A batch's `rows` are pairs.
    """

    kind: Literal["suggestion"] = "suggestion"
    reading: Reading = Field(Reading(), description="what is read before a suggestion")
    plain_share: float = Field(
        0.5, ge=0, le=1, description="share of pairs that are read without their titles, so that it also writes so"
    )
    sampled_vocabulary: int | None = Field(
        8192,
        ge=1,
        description="number of tokens drawn for a batch's softmax, beside its own; null: the whole vocabulary",
    )
    held_out: int = Field(
        500,
        ge=0,
        le=100_000,
        description="pairs that are never trained on, at most a tenth; they share no query and no document with others",
    )
