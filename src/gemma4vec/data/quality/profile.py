"""What is in a source of rows: lengths, languages, how much query and positive share, how hard negatives are."""

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
"""Cosine of each query with the document at its place."""
FIELDS = ("query", "positive", "negative")
QUANTILES = (0.05, 0.5, 0.95)
BINS = 40


@dataclass(frozen=True)
class Distribution:
    """A distribution: its mean, 5%, 50% and 95% quantiles, largest value, and a histogram.

    Attributes:
        edges, counts: of the histogram, one more edge than counts; the last bin holds all that is larger.
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
        """None where there is no value; `limits` are those of the histogram, by default 0 and the 99% quantile."""
        if not len(values):
            return None
        found = np.asarray(values, dtype=np.float64)
        low, high = limits or (0.0, max(float(np.quantile(found, 0.99)), 1.0))
        whole = limits is None and high < BINS  # short lengths: a bin for each number, or some would stay empty
        bins = int(high) + 1 if whole else BINS
        high = float(bins) if whole else high
        counts, edges = np.histogram(np.clip(found, low, high), bins=bins, range=(low, high))
        five, half, most = (float(one) for one in np.quantile(found, QUANTILES))
        mean, largest = float(found.mean()), float(found.max())
        return cls(len(found), mean, five, half, most, largest, edges.tolist(), counts.tolist())


@dataclass(frozen=True)
class Profile:
    """What is in one source.

    Attributes:
        rows, positives, negatives: how many.
        sampled: rows that everything below was measured on.
        unit: of `lengths`: "tokens" or "words".
        lengths: by field.
        languages: by field, code -> texts.
        overlap: share of the query's words (without stop words, stemmed) that its positive has.
        negative_overlap: the same of its negatives.
        as_near: share of the negatives that have at least as many of the query's words as the positive.
        similarity, negative_similarity: cosines by a model with the positive and with negatives, where one was given.
        above: share of the negatives whose cosine is at least the positive's.
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
        """As JSON values."""
        return asdict(self)


@dataclass
class _Sample:
    """The sampled rows' texts, flat; `row` says to which row each belongs."""

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
    """Look at a source.

    Args:
        name: of the source.
        rows: all of them; plain texts are rows without positives.
        sample: everything but the counts is measured on at most so many rows, evenly spaced.
        detect: a text's language.
        count: how many tokens each text has; None counts words.
        similarity: cosines by a model.
        code: the texts are code.
    """
    places = range(len(rows)) if len(rows) <= sample else np.linspace(0, len(rows) - 1, sample).astype(int).tolist()
    taken = _Sample()
    for place in dict.fromkeys(places):
        _take(rows[place], taken)
    texts = {"query": taken.queries, "positive": _plain(taken.positives), "negative": _plain(taken.negatives)}
    measure = count or (lambda many: [len(normalize(text).split()) for text in many])
    tokens = choose_tokenizer([*texts["query"], *texts["positive"]], code=code)
    shared = _shared(tokens, taken.queries, texts["positive"], taken.positive_row)
    other = _shared(tokens, taken.queries, texts["negative"], taken.negative_row)
    cosines, others = _cosines(similarity, taken)
    return Profile(
        name=name,
        rows=len(rows),
        positives=int(as_lazy_rows(rows).positive_counts().sum()),
        negatives=int(as_lazy_rows(rows).negative_counts().sum()),
        sampled=len(taken.queries),
        unit="words" if count is None else "tokens",
        lengths={field: Distribution.from_values(measure(texts[field])) for field in FIELDS},
        languages={field: dict(Counter(map(detect, texts[field])).most_common()) for field in FIELDS},
        overlap=Distribution.from_values(shared, (0.0, 1.0)),
        negative_overlap=Distribution.from_values(other, (0.0, 1.0)),
        as_near=_share_at_least(shared, taken.positive_row, other, taken.negative_row),
        similarity=Distribution.from_values(cosines, (-1.0, 1.0)),
        negative_similarity=Distribution.from_values(others, (-1.0, 1.0)),
        above=_share_at_least(cosines, taken.positive_row, others, taken.negative_row) if len(cosines) else None,
    )


def _take(row: Row, taken: _Sample) -> None:
    number = len(taken.queries)
    taken.queries.append(row.query)
    taken.positives += row.pos
    taken.negatives += row.neg
    taken.positive_row += [number] * len(row.pos)
    taken.negative_row += [number] * len(row.neg)


def _plain(documents: Sequence[Document]) -> list[str]:
    plain = Prompts()
    return [plain.for_document(document).text for document in documents]


def _shared(tokens: WordTokenizer, queries: Sequence[str], texts: Sequence[str], row_of: Sequence[int]) -> list[float]:
    """For each text the share of its query's words that it has; 0 where the query has none."""
    words = [set(tokens(query)) for query in queries]
    return [
        len(words[row] & set(tokens(text))) / len(words[row]) if words[row] else 0.0
        for text, row in zip(texts, row_of, strict=True)
    ]


def _cosines(similarity: Similarity | None, taken: _Sample) -> tuple[Sequence[float], Sequence[float]]:
    if similarity is None:
        return [], []
    return (
        similarity([taken.queries[row] for row in taken.positive_row], taken.positives).tolist(),
        similarity([taken.queries[row] for row in taken.negative_row], taken.negatives).tolist()
        if taken.negatives
        else [],
    )


def _share_at_least(
    own: Sequence[float], own_row: Sequence[int], others: Sequence[float], other_row: Sequence[int]
) -> float | None:
    """The share of negatives whose value is at least that of their row's best positive; None without negatives."""
    if not len(others):
        return None
    best: dict[int, float] = {}
    for value, row in zip(own, own_row, strict=True):
        best[row] = max(value, best.get(row, -np.inf))
    return float(np.mean([value >= best[row] for value, row in zip(others, other_row, strict=True)]))
