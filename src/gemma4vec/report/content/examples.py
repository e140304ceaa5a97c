"""The queries where the trained model gains and loses most, with the texts that explain it."""

from collections.abc import Mapping
from dataclasses import dataclass

from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.paired import QueryDifference
from gemma4vec.report.content.run_data import RunData, SuiteResults, label, shortened, suite_folder

SHOWN, RIGHT_SHOWN = 5, 3
LINES, CHARACTERS = 80, 4000
ID_CHARACTERS, QUERY_CHARACTERS = 300, 800


@dataclass(frozen=True)
class Passage:
    """A document as shown: cut where it is long (`cut` says by how much), or without text where the suite is gone."""

    id: str
    title: str | None
    text: str | None
    cut: str


@dataclass(frozen=True)
class Pick:
    """What one model made of the query: the rank of the first right document in its top ten, and its first document.

    `passage` is None where its first document is a right one, which is shown already.
    """

    model: str
    rank: int | None
    depth: int
    passage: Passage | None


@dataclass(frozen=True)
class Example:
    """One query with its first right documents (of `right_count`) and what each model put first."""

    query_id: str
    query: str | None
    trained: float
    other: float
    right: list[Passage]
    right_count: int
    picks: list[Pick]


@dataclass(frozen=True)
class Examples:
    """The largest wins and losses of the trained model against another one."""

    other: str
    wins: list[Example]
    losses: list[Example]
    note: str
    """Why there are no texts; empty where there are."""
    code: bool
    """Whether the texts are code, whose lines must not be wrapped."""


def find_examples(run: RunData, suite: SuiteResults, other: str) -> Examples | None:
    """The largest wins and losses against `other`; None where the two cannot be compared."""
    found = suite.comparisons.get(other) or suite.largest.get(other)
    if found is None:
        return None
    texts, note = _load_texts(run, suite)
    make = _ExampleMaker(suite, texts, ("trained", other))
    return Examples(
        _called(suite, other),
        [make(row) for row in found.largest_wins[:SHOWN]],
        [make(row) for row in found.largest_losses[:SHOWN]],
        note,
        texts is not None and texts.code,
    )


def _called(suite: SuiteResults, model: str) -> str:
    return suite.names.get(model) or label(model)


def _load_texts(run: RunData, suite: SuiteResults) -> tuple[RetrievalSuite | None, str]:
    """The suite's texts, or why they are not there."""
    folder = suite_folder(run, suite.name)
    if folder is None:
        return None, "The manifest does not say where this suite stands, so ids stand for texts."
    try:
        texts = load_suite(folder)
    except InputError as error:
        return None, f"The suite's texts are gone, so ids stand for texts ({error})."
    known = {(result.settings.get("suite") or {}).get("fingerprint") for result in suite.results.values()} - {None}
    if known and known != {texts.fingerprint}:
        return texts, "The suite has changed since the evaluation: these texts may not be those that were ranked."
    return texts, ""


class _ExampleMaker:
    """Turns a query's difference into what the page shows."""

    def __init__(self, suite: SuiteResults, texts: RetrievalSuite | None, models: tuple[str, ...]) -> None:
        self.suite, self.models = suite, models
        self.qrels: Mapping[str, Mapping[str, int]] = texts.qrels if texts else {}
        self.queries = dict(zip(texts.query_ids, texts.queries, strict=True)) if texts else {}
        self.documents = dict(zip(texts.corpus_ids, texts.corpus, strict=True)) if texts else {}

    def __call__(self, row: QueryDifference) -> Example:
        """The example of one query."""
        judged = self.qrels.get(row.query_id, {})
        right = sorted((key for key, grade in judged.items() if grade >= 1), key=lambda key: (-judged[key], key))
        query = self.queries.get(row.query_id)
        return Example(
            shortened(row.query_id, ID_CHARACTERS),
            shortened(query, QUERY_CHARACTERS) if query is not None else None,
            row.a,
            row.b,
            [self._passage(key) for key in right[:RIGHT_SHOWN]],
            len(right),
            [self._pick(model, row.query_id, set(right)) for model in self.models],
        )

    def _pick(self, model: str, query_id: str, right: set[str]) -> Pick:
        ranked = [key for key, _ in self.suite.tops.get(model, {}).get(query_id, [])]
        rank = next((place for place, key in enumerate(ranked, start=1) if key in right), None)
        shown = self._passage(ranked[0]) if ranked and ranked[0] not in right else None
        return Pick(_called(self.suite, model), rank, len(ranked), shown)

    def _passage(self, key: str) -> Passage:
        document, name = self.documents.get(key), shortened(key, ID_CHARACTERS)
        if document is None:
            return Passage(name, None, None, "")
        lines = document.text[:CHARACTERS].split("\n")[:LINES]
        shown = "\n".join(lines)
        left_out = len(document.text) - len(shown)
        title = shortened(document.title, ID_CHARACTERS) if document.title else None
        return Passage(name, title, shown, f"{left_out:,} more characters are not shown" if left_out else "")
