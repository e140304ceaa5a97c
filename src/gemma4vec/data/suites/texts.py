"""The texts of a suite of any kind, as what may not stand in training data: queries, and documents that are right."""

from collections.abc import Mapping
from dataclasses import dataclass

from gemma4vec.data.suites.group import OneSuite
from gemma4vec.data.suites.held_out_rows import RowSuite
from gemma4vec.data.suites.sts import StsSuite
from gemma4vec.text.prompts import Document


@dataclass(frozen=True)
class SuiteTexts:
    """A suite's texts.

    Attributes:
        name, fingerprint: of the suite.
        queries: (id, text); an id may come twice: the two sentences of a pair.
        documents: (id, document).
        right: query id -> ids of the documents that answer it.
    """

    name: str
    fingerprint: str
    queries: list[tuple[str, str]]
    documents: list[tuple[str, Document]]
    right: Mapping[str, set[str]]

    @property
    def query_ids(self) -> list[str]:
        """Each once, in order."""
        return list(dict.fromkeys(key for key, _ in self.queries))


def suite_texts(suite: OneSuite) -> SuiteTexts:
    """What a suite asks: queries and documents; both sentences of pairs; queries and positives of rows."""
    if isinstance(suite, StsSuite):
        pairs = [*zip(suite.ids, suite.first, strict=True), *zip(suite.ids, suite.second, strict=True)]
        return SuiteTexts(suite.name, suite.fingerprint, pairs, [], {})
    if isinstance(suite, RowSuite):
        numbered = list(zip(suite.ids, suite.rows, strict=True))
        return SuiteTexts(
            suite.name,
            suite.fingerprint,
            [(key, row.query) for key, row in numbered],
            [(key, document) for key, row in numbered for document in row.pos],
            {key: {key} for key in suite.ids},
        )
    return SuiteTexts(
        suite.name,
        suite.fingerprint,
        list(zip(suite.query_ids, suite.queries, strict=True)),
        list(zip(suite.corpus_ids, suite.corpus, strict=True)),
        {query: {key for key, grade in judged.items() if grade >= 1} for query, judged in suite.qrels.items()},
    )
