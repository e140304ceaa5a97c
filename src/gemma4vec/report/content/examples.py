"""The queries with the largest wins and losses of the trained model, with their texts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.paired import QueryDifference, largest_differences
from gemma4vec.evaluation.results.result import Result
from gemma4vec.evaluation.scoring.open_any_suite import open_retrieval_suite
from gemma4vec.ledger.suite_halves import hidden_words, shown_queries
from gemma4vec.report.content.run_data import PRIMARY, RunData, SuiteResults, label, shorten, suite_place

SHOWN, RELEVANT_SHOWN = 5, 3
LINES, CHARACTERS = 80, 4000
ID_CHARACTERS, QUERY_CHARACTERS = 300, 800
NOT_OF_FINAL = "Single queries of a final suite are not shown: a look at failures teaches more about it than a score."


@dataclass(frozen=True)
class Passage:
    """A document as the page shows it: cut if long (`cut` says by how much); without text if the suite is gone."""

    id: str
    title: str | None
    text: str | None
    cut: str


@dataclass(frozen=True)
class Pick:
    """One model's answer to the query: rank of the first relevant document in its top ten, and the first document.

    `passage` is None if the first document is relevant, because the page already shows that one.
    """

    model: str
    rank: int | None
    depth: int
    passage: Passage | None


@dataclass(frozen=True)
class Example:
    """One query with its first relevant documents (of `relevant_count`) and each model's answer."""

    query_id: str
    query: str | None
    trained: float
    other: float
    relevant: list[Passage]
    relevant_count: int
    picks: list[Pick]


@dataclass(frozen=True)
class Examples:
    """The largest wins and losses of the trained model against another model."""

    other: str
    wins: list[Example]
    losses: list[Example]
    note: str
    """Why there are no texts, or why they may be wrong; empty otherwise."""
    code: bool
    """Whether the texts are code, whose lines must not wrap."""
    hidden: str
    """How many queries are withheld, since they are sealed; empty if none."""


def find_examples(run: RunData, suite: SuiteResults, other: str) -> Examples | None:
    """Find the largest wins and losses against `other` among queries that are not sealed.

    None if the two were not compared. Of a final suite there are none: failures teach more about it than a score does.
    """
    if (suite.comparisons.get(other) or suite.largest.get(other)) is None:
        return None
    trained, against = suite.results["trained"], suite.results[other]
    about = trained.settings.get("suite") or {}
    if about.get("role") == "final":
        return Examples(_model_name(suite, other), [], [], NOT_OF_FINAL, False, "")
    texts, note = _load_texts(run, suite)
    shown_N = _shown(trained, about.get("fingerprint"), texts)
    found = largest_differences(trained, against, PRIMARY, shown_N)
    make = _ExampleMaker(suite, texts, ("trained", other))
    return Examples(
        _model_name(suite, other),
        [make(row) for row in found.largest_wins[:SHOWN]],
        [make(row) for row in found.largest_losses[:SHOWN]],
        note,
        texts is not None and texts.code,
        hidden_words(int((~shown_N).sum()), len(shown_N)),
    )


def _shown(result: Result, fingerprint: str | None, texts: RetrievalSuite | None) -> npt.NDArray[np.bool_]:
    """Queries that may be shown, bool[N]; those of a suite of several tasks, whose texts are not shown, all may."""
    ids = [query_id for _, query_id in result.keys]
    if len(result.per_query) != 1:
        return np.ones(len(ids), dtype=bool)
    contents = fingerprint or (texts.fingerprint if texts is not None else "")
    known = dict(zip(texts.query_ids, texts.queries, strict=True)) if texts is not None else None
    return shown_queries(contents, ids, None if known is None else [known.get(one, "") for one in ids])


def _model_name(suite: SuiteResults, model: str) -> str:
    return suite.names.get(model) or label(model)


def _load_texts(run: RunData, suite: SuiteResults) -> tuple[RetrievalSuite | None, str]:
    """Load the suite's texts. The second value says why they are missing or may be wrong."""
    place = suite_place(run, suite.name)
    if place is None:
        return None, "Neither the manifest nor a result says where this suite is: the page shows ids instead of texts."
    if any(len(result.per_query) > 1 for result in suite.results.values()):
        return None, "The page shows ids of a suite of several tasks, and no texts."
    try:
        texts = open_retrieval_suite(place)
    except InputError as error:
        return None, f"The suite's texts are gone, so the page shows ids instead of texts ({error})."
    known = {result.contents for result in suite.results.values()} - {None}
    if known and known != {texts.fingerprint}:
        return texts, "The suite has changed since the evaluation: these texts may differ from the ranked ones."
    return texts, ""


class _ExampleMaker:
    """Makes an `Example` from a query's difference."""

    def __init__(self, suite: SuiteResults, texts: RetrievalSuite | None, models: tuple[str, ...]) -> None:
        self.suite, self.models = suite, models
        self.qrels: Mapping[str, Mapping[str, int]] = texts.qrels if texts else {}
        self.queries = dict(zip(texts.query_ids, texts.queries, strict=True)) if texts else {}
        self.documents = dict(zip(texts.corpus_ids, texts.corpus, strict=True)) if texts else {}

    def __call__(self, row: QueryDifference) -> Example:
        """Return the example of one query."""
        judged = self.qrels.get(row.query_id, {})
        relevant = sorted((key for key, grade in judged.items() if grade >= 1), key=lambda key: (-judged[key], key))
        query = self.queries.get(row.query_id)
        return Example(
            shorten(row.query_id, ID_CHARACTERS),
            shorten(query, QUERY_CHARACTERS) if query is not None else None,
            row.a,
            row.b,
            [self._passage(key) for key in relevant[:RELEVANT_SHOWN]],
            len(relevant),
            [self._pick(model, row.query_id, set(relevant)) for model in self.models],
        )

    def _pick(self, model: str, query_id: str, relevant: set[str]) -> Pick:
        ranked = [key for key, _ in self.suite.tops.get(model, {}).get(query_id, [])]
        rank = next((place for place, key in enumerate(ranked, start=1) if key in relevant), None)
        shown = self._passage(ranked[0]) if ranked and ranked[0] not in relevant else None
        return Pick(_model_name(self.suite, model), rank, len(ranked), shown)

    def _passage(self, key: str) -> Passage:
        document, name = self.documents.get(key), shorten(key, ID_CHARACTERS)
        if document is None:
            return Passage(name, None, None, "")
        lines = document.text[:CHARACTERS].split("\n")[:LINES]
        shown = "\n".join(lines)
        left_out = len(document.text) - len(shown)
        title = shorten(document.title, ID_CHARACTERS) if document.title else None
        return Passage(name, title, shown, f"{left_out:,} more characters are not shown" if left_out else "")
