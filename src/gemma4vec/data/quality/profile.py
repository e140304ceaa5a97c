"""Profile of a source: lengths, languages, words shared by query and positive, hardness of negatives."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.ngrams.language import LanguageDetector
from gemma4vec.data.ngrams.word_ngrams import normalize
from gemma4vec.data.rows.lazy_rows import as_lazy_rows
from gemma4vec.data.rows.rows import Row
from gemma4vec.retrieval.tokenize import WordTokenizer, choose_tokenizer
from gemma4vec.text.prompts import Document, Prompts

CountTokens = Callable[[list[str]], list[int]]
Similarity = Callable[[list[str], list[Document]], NDArray[np.float32]]
"""Returns the cosine of each query with the document at the same position."""
FIELDS = ("query", "positive", "negative")
QUANTILES = (0.05, 0.5, 0.95)
BINS = 40


@dataclass(frozen=True)
class Distribution:
    """Mean, 5%, 50% and 95% quantiles, maximum and histogram of some values.

    Attributes:
        edges, counts: the histogram, with one more edge than counts; the last bin includes all larger values.
    """

    n: int
    mean: float
    low: float
    median: float
    high: float
    largest: float
    edges: list[float]
    counts: list[int]

    @classmethod
    def from_values(cls, values: Sequence[float], limits: tuple[float, float] | None = None) -> "Distribution | None":
        """Return None if there are no values; `limits` of the histogram default to 0 and the 99% quantile."""
        if not len(values):
            return None
        found = np.asarray(values, dtype=np.float64)
        low, high = limits or (0.0, max(float(np.quantile(found, 0.99)), 1.0))
        whole = limits is None and high < BINS  # one bin for each integer, or some bins would stay empty
        bins = int(high) + 1 if whole else BINS
        high = float(bins) if whole else high
        counts, edges = np.histogram(np.clip(found, low, high), bins=bins, range=(low, high))
        five, half, most = (float(one) for one in np.quantile(found, QUANTILES))
        mean, largest = float(found.mean()), float(found.max())
        return cls(len(found), mean, five, half, most, largest, edges.tolist(), counts.tolist())


@dataclass(frozen=True)
class Profile:
    """The profile of one source.

    Attributes:
        rows, positives, negatives: numbers of each.
        sampled: number of rows on which everything below was measured.
        unit: unit of `lengths`, "tokens" or "words".
        lengths: field -> lengths.
        languages: field -> language code -> number of texts.
        overlap: share of the query's words (stemmed, without stop words) that its positive contains.
        negative_overlap: the same share for its negatives.
        as_near: share of negatives that contain at least as many of the query's words as the positive.
        similarity, negative_similarity: a model's cosines of query and positive, and of query and negatives; None
            without a model.
        above: share of negatives whose cosine is at least the positive's.
    """

    name: str
    rows: int
    positives: int
    negatives: int
    sampled: int
    unit: str
    lengths: dict[str, Distribution | None]
    languages: dict[str, dict[str, int]]
    overlap: Distribution | None
    negative_overlap: Distribution | None
    as_near: float | None
    similarity: Distribution | None = None
    negative_similarity: Distribution | None = None
    above: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the profile as JSON values."""
        return asdict(self)


@dataclass
class _Sample:
    """The sampled rows' texts in flat lists; `positive_row` and `negative_row` hold the index of each text's query."""

    queries: list[str] = field(default_factory=list)
    positives: list[Document] = field(default_factory=list)
    negatives: list[Document] = field(default_factory=list)
    positive_row: list[int] = field(default_factory=list)
    negative_row: list[int] = field(default_factory=list)


def profile_rows(
    name: str,
    rows: Sequence[Row],
    *,
    sample: int,
    detect: LanguageDetector,
    count: CountTokens | None = None,
    similarity: Similarity | None = None,
    code: bool = False,
) -> Profile:
    """Profile a source.

    Args:
        name: name of the source.
        rows: all its rows; plain texts are rows without positives.
        sample: maximum number of evenly spaced rows on which everything but the counts is measured.
        detect: returns a text's language.
        count: returns the number of tokens of each text; None counts words.
        similarity: returns a model's cosines.
        code: whether the texts are code.
    """
    places = range(len(rows)) if len(rows) <= sample else np.linspace(0, len(rows) - 1, sample).astype(int).tolist()
    sampled = _Sample()
    for place in dict.fromkeys(places):
        _add_row(rows[place], sampled)
    texts = {"query": sampled.queries, "positive": _plain(sampled.positives), "negative": _plain(sampled.negatives)}
    measure = count or (lambda many: [len(normalize(text).split()) for text in many])
    tokens = choose_tokenizer([*texts["query"], *texts["positive"]], code=code)
    shared = _word_overlaps(tokens, sampled.queries, texts["positive"], sampled.positive_row)
    other = _word_overlaps(tokens, sampled.queries, texts["negative"], sampled.negative_row)
    cosines, others = _compute_cosines(similarity, sampled)
    return Profile(
        name=name,
        rows=len(rows),
        positives=int(as_lazy_rows(rows).positive_counts().sum()),
        negatives=int(as_lazy_rows(rows).negative_counts().sum()),
        sampled=len(sampled.queries),
        unit="words" if count is None else "tokens",
        lengths={field: Distribution.from_values(measure(texts[field])) for field in FIELDS},
        languages={field: dict(Counter(map(detect, texts[field])).most_common()) for field in FIELDS},
        overlap=Distribution.from_values(shared, (0.0, 1.0)),
        negative_overlap=Distribution.from_values(other, (0.0, 1.0)),
        as_near=_share_at_least(shared, sampled.positive_row, other, sampled.negative_row),
        similarity=Distribution.from_values(cosines, (-1.0, 1.0)),
        negative_similarity=Distribution.from_values(others, (-1.0, 1.0)),
        above=_share_at_least(cosines, sampled.positive_row, others, sampled.negative_row) if len(cosines) else None,
    )


def _add_row(row: Row, sampled: _Sample) -> None:
    number = len(sampled.queries)
    sampled.queries.append(row.query)
    sampled.positives += row.pos
    sampled.negatives += row.neg
    sampled.positive_row += [number] * len(row.pos)
    sampled.negative_row += [number] * len(row.neg)


def _plain(documents: Sequence[Document]) -> list[str]:
    plain = Prompts()
    return [plain.for_document(document).text for document in documents]


def _word_overlaps(
    tokens: WordTokenizer, queries: Sequence[str], texts: Sequence[str], row_of: Sequence[int]
) -> list[float]:
    """Return for each text the share of its query's words that it contains; 0 if the query has no words."""
    words = [set(tokens(query)) for query in queries]
    return [
        len(words[row] & set(tokens(text))) / len(words[row]) if words[row] else 0.0
        for text, row in zip(texts, row_of, strict=True)
    ]


def _compute_cosines(similarity: Similarity | None, sampled: _Sample) -> tuple[Sequence[float], Sequence[float]]:
    if similarity is None:
        return [], []
    return (
        similarity([sampled.queries[row] for row in sampled.positive_row], sampled.positives).tolist(),
        similarity([sampled.queries[row] for row in sampled.negative_row], sampled.negatives).tolist()
        if sampled.negatives
        else [],
    )


def _share_at_least(
    own: Sequence[float], own_row: Sequence[int], others: Sequence[float], other_row: Sequence[int]
) -> float | None:
    """Return the share of negatives whose value is at least their row's best positive's; None without negatives."""
    if not len(others):
        return None
    best: dict[int, float] = {}
    for value, row in zip(own, own_row, strict=True):
        best[row] = max(value, best.get(row, -np.inf))
    return float(np.mean([value >= best[row] for value, row in zip(others, other_row, strict=True)]))
