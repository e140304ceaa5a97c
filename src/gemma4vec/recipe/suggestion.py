"""The recipe's words for a suggester: a model that writes other queries for a query."""

from typing import Literal

from pydantic import Field

from gemma4vec.recipe.part import Part

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
