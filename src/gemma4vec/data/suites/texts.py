"""The texts of a suite of any kind that must not be in training data: queries and relevant documents."""

from collections.abc import Mapping
from dataclasses import dataclass

from gemma4vec.text.prompts import Document


@dataclass(frozen=True)
class SuiteTexts:
    """A suite's texts.

    Attributes:
        name, fingerprint: those of the suite.
        queries: (id, text); the two sentences of a pair share an id.
        documents: (id, document).
        relevant: query id -> ids of its relevant documents.
    """

    name: str
    fingerprint: str
    queries: list[tuple[str, str]]
    documents: list[tuple[str, Document]]
    relevant: Mapping[str, set[str]]

    @property
    def query_ids(self) -> list[str]:
        """Ids of the queries, in order, without duplicates."""
        return list(dict.fromkeys(key for key, _ in self.queries))
