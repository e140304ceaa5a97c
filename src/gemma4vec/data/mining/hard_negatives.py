"""Hard negative mining: documents that look relevant but do not answer the query, with scores and origin.

A mined negative may be a false one. Four measures reduce these: a row's own texts, and the positives of rows with the
same query, are never negatives; the first ranks can be skipped; candidates that score too close to the positive are
dropped (positive-aware mining, Moreira et al. 2024, NV-Retriever, arXiv:2407.15831, section 3); candidates that score
above the positive can become positives (Thakur et al. 2025, arXiv:2505.16967).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from gemma4vec.data.mining.searchers import Bm25Searcher, Floats, ModelSearcher
from gemma4vec.data.ngrams.hash_set import short_hash
from gemma4vec.data.ngrams.word_ngrams import normalize
from gemma4vec.data.rows.lazy_rows import LazyRows
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.rows.scores import Scores
from gemma4vec.errors import InputError
from gemma4vec.retrieval.top_k import TopK
from gemma4vec.text.prompts import Document

BLOCK = 1_024


@dataclass(frozen=True)
class Rules:
    """Which candidates become negatives.

    Attributes:
        n: negatives to add to each row.
        window: first and last rank, from 1, of each searcher's results.
        share: drop candidates that score above this share of the best positive's score; None: none. Scores are the
            model's if there is one, else BM25's.
        margin: drop candidates that score above the best positive's score minus this margin; None: none.
        choose: take the best of the window ("top"), or draw from it with a seed from the query ("draw").
        relabel: candidates and given negatives that score at least this share of the positive's score become positives
            (a model's scores only); None: none.
    """

    n: int = 10
    window: tuple[int, int] = (1, 100)
    share: float | None = None
    margin: float | None = None
    choose: Literal["top", "draw"] = "top"
    relabel: float | None = None

    def check(self, by_model: bool) -> None:
        """Check that the rules are consistent.

        Raises:
            InputError: names the option.
        """
        if not 1 <= self.window[0] <= self.window[1]:
            raise InputError(f"--ranks {self.window[0]}-{self.window[1]}: expected first and last rank, from 1")
        if self.window[1] - self.window[0] + 1 < self.n:
            raise InputError(f"--ranks {self.window[0]}-{self.window[1]} has fewer than the {self.n} negatives of -n")
        if self.relabel is not None and not by_model:
            raise InputError("--relabel needs a model's scores (--model); BM25 cannot judge relevance")


@dataclass(frozen=True)
class Origin:
    """Searcher that found a negative ("given" if the row had it), its rank there, and its scores by searcher."""

    by: str
    rank: int | None
    scores: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """JSON for the output; scores are rounded to the precision of a model."""
        return {"by": self.by, "rank": self.rank, **{name: round(one, 5) for name, one in self.scores.items()}}


@dataclass(frozen=True)
class MinedRow:
    """A row with its new negatives.

    Attributes:
        row: the row with all its negatives.
        origins: origin of each negative.
        positive_scores: searcher -> scores of the positives that the row had.
        relabelled: number of positives, at the end of the list, that were candidates or negatives.
        dropped: number of candidates dropped because they scored too close to the positive.
        scores: scores of all positives and negatives by the judging searcher; None if it lacks one.
    """

    row: Row
    origins: list[Origin]
    positive_scores: dict[str, list[float]]
    relabelled: int = 0
    dropped: int = 0
    scores: Scores | None = None


@dataclass
class Corpus:
    """Documents without duplicates.

    Attributes:
        documents: M documents.
        place_of: hash of the normalized title and text -> index in `documents`.
    """

    documents: list[Document] = field(default_factory=list)
    place_of: dict[int, int] = field(default_factory=dict)

    def add(self, document: Document) -> int | None:
        """The document's index, after adding it if it is new; None if it has no word."""
        key = _key(document)
        if key is None:
            return None
        if key not in self.place_of:
            self.place_of[key] = len(self.documents)
            self.documents.append(document)
        return self.place_of[key]

    def place(self, document: Document) -> int | None:
        """The index of a document; None if it is not in the corpus."""
        key = _key(document)
        return None if key is None else self.place_of.get(key)


class WithoutNegatives(LazyRows):
    """The same rows without their negatives."""

    def __init__(self, rows: Sequence[Row]):
        self.rows, self.size = rows, len(rows)

    def row(self, number: int) -> Row:
        return replace(self.rows[number], neg=[], scores=None)


def build_corpus(rows: Sequence[Row], others: Sequence[Document] = ()) -> Corpus:
    """The documents to mine from: `others`, and the rows' positives and negatives, which need scores too.

    Raises:
        InputError: no document has a word.
    """
    corpus = Corpus()
    for document in others:
        corpus.add(document)
    for row in rows:
        for document in (*row.pos, *row.neg):
            corpus.add(document)
    if not corpus.documents:
        raise InputError("data mine: the corpus has no text; use rows with positives, or another --corpus")
    return corpus


def mine(
    rows: Sequence[Row],
    corpus: Corpus,
    rules: Rules,
    *,
    bm25: Bm25Searcher | None = None,
    model: ModelSearcher | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[MinedRow]:
    """Every row with its negatives, in order. Candidates of two searchers alternate, the model's first.

    Raises:
        InputError: inconsistent rules, no searcher, or a row without a positive.
    """
    rules.check(model is not None)
    if bm25 is None and model is None:
        raise InputError("data mine: no searcher; use --bm25, --model, or both")
    plain = next((number for number, row in enumerate(rows, start=1) if not row.pos), None)
    if plain is not None:
        raise InputError(f"data mine: row {plain} has no positive to compare with; remove sources of plain texts")
    own_texts = _own_by_query(rows, corpus)
    for start in range(0, len(rows), BLOCK):
        block = [rows[place] for place in range(start, min(start + BLOCK, len(rows)))]
        own = [
            sorted({*own_texts[short_hash(normalize(row.query))], *_known(row.neg, corpus)})  # with its positives
            for row in block
        ]
        yield from _mine_block(block, own, corpus, rules, bm25, model)
        progress(start + len(block), len(rows))


def _mine_block(
    block: Sequence[Row],
    own: list[list[int]],
    corpus: Corpus,
    rules: Rules,
    bm25: Bm25Searcher | None,
    model: ModelSearcher | None,
) -> Iterator[MinedRow]:
    queries, depth = [row.query for row in block], rules.window[1]
    found: dict[str, TopK] = {}
    own_scores: dict[str, list[Floats]] = {}
    vectors_ND = model.encode(queries) if model is not None else None
    if model is not None and vectors_ND is not None:
        found[model.name], own_scores[model.name] = model.search_vectors(vectors_ND, depth, own)
    if bm25 is not None:
        found[bm25.name], own_scores[bm25.name] = bm25.search(queries, depth, own)
    for number, row in enumerate(block):
        known = {
            name: dict(zip(own[number], scores[number].tolist(), strict=True)) for name, scores in own_scores.items()
        }
        candidates = _candidates(number, found, rules)
        if model is not None and vectors_ND is not None:  # the model scores BM25's candidates too
            missing = [place for place, origin in candidates.items() if model.name not in origin.scores]
            for place, score in zip(missing, model.scores(vectors_ND[number], missing).tolist(), strict=True):
                candidates[place].scores[model.name] = score
        judge = model.name if model is not None else "bm25"
        yield _choose(row, candidates, known, judge, corpus, rules)


def _candidates(number: int, found: dict[str, TopK], rules: Rules) -> dict[int, Origin]:
    """Index -> origin of all searchers' candidates for one row, alternating rank by rank."""
    low, high = rules.window
    candidates: dict[int, Origin] = {}
    for rank in range(low, high + 1):
        for name, (indices, scores) in found.items():
            place = int(indices[number, rank - 1])
            if place < 0:
                continue
            origin = candidates.setdefault(place, Origin(name, rank, {}))
            origin.scores[name] = float(scores[number, rank - 1])
    return candidates


def _choose(
    row: Row,
    candidates: dict[int, Origin],
    known: dict[str, dict[int, float]],
    judge: str,
    corpus: Corpus,
    rules: Rules,
) -> MinedRow:
    """Apply the rules to one row's candidates."""
    positive_scores = {name: [_score_of(one, scores, corpus) for one in row.pos] for name, scores in known.items()}
    best = max(positive_scores[judge])
    given = [Origin("given", None, _scores_of(one, known, corpus)) for one in row.neg]
    kept_neg, positives = list(zip(row.neg, given, strict=True)), list(row.pos)
    judged = list(positive_scores[judge])
    if rules.relabel is not None:
        bar = _share(best, rules.relabel)
        raised = [(document, origin) for document, origin in kept_neg if origin.scores.get(judge, -np.inf) >= bar]
        kept_neg = [(document, origin) for document, origin in kept_neg if origin.scores.get(judge, -np.inf) < bar]
        above = [place for place, origin in candidates.items() if origin.scores[judge] >= bar]
        raised += [(corpus.documents[place], candidates[place]) for place in above]
        positives += [document for document, _ in raised]
        judged += [origin.scores[judge] for _, origin in raised]
        candidates = {place: origin for place, origin in candidates.items() if place not in set(above)}
    limit = min(
        np.inf if rules.share is None else _share(best, rules.share),
        np.inf if rules.margin is None else best - rules.margin,
    )
    fitting = [(place, origin) for place, origin in candidates.items() if origin.scores[judge] <= limit]
    chosen = [(corpus.documents[place], origin) for place, origin in _drawn(row.query, fitting, rules)]
    negatives = [*kept_neg, *chosen]
    return MinedRow(
        replace(row, pos=positives, neg=[document for document, _ in negatives], scores=None),
        [origin for _, origin in negatives],
        positive_scores,
        relabelled=len(positives) - len(row.pos),
        dropped=len(candidates) - len(fitting),
        scores=_all_scores(judged, [origin.scores.get(judge, -np.inf) for _, origin in negatives], judge),
    )


def _all_scores(positives: Sequence[float], negatives: Sequence[float], judge: str) -> Scores | None:
    if not np.isfinite([*positives, *negatives]).all():
        return None
    pos, neg = (tuple(round(score, 5) for score in scores) for scores in (positives, negatives))
    return Scores(pos, neg, judge)


def _drawn(query: str, fitting: list[tuple[int, Origin]], rules: Rules) -> list[tuple[int, Origin]]:
    if rules.choose == "top" or len(fitting) <= rules.n:
        return fitting[: rules.n]
    seed = int.from_bytes(hashlib.sha256(query.encode("utf-8", errors="surrogatepass")).digest()[:8], "little")
    picked = np.random.default_rng(seed).choice(len(fitting), rules.n, replace=False)
    return [fitting[place] for place in np.sort(picked)]


def _share(score: float, share: float) -> float:
    """A share of a score. A negative score is lowered by as much as a positive one of the same size."""
    return score - (1 - share) * abs(score)


def _own_by_query(rows: Sequence[Row], corpus: Corpus) -> dict[int, list[int]]:
    """Hash of a normalized query -> indices of the positives of all rows with this query."""
    own: dict[int, list[int]] = {}
    for row in rows:
        own.setdefault(short_hash(normalize(row.query)), []).extend(_known(row.pos, corpus))
    return own


def _known(documents: Sequence[Document], corpus: Corpus) -> list[int]:
    places = (corpus.place(document) for document in documents)
    return [place for place in places if place is not None]


def _score_of(document: Document, scores: dict[int, float], corpus: Corpus) -> float:
    place = corpus.place(document)
    return scores.get(place, -np.inf) if place is not None else -np.inf


def _scores_of(document: Document, known: dict[str, dict[int, float]], corpus: Corpus) -> dict[str, float]:
    found = {name: _score_of(document, scores, corpus) for name, scores in known.items()}
    return {name: score for name, score in found.items() if score != -np.inf}


def _key(document: Document) -> int | None:
    """Hash of a document's words; None if it has no word."""
    words = normalize(f"{document.title} {document.text}" if document.title else document.text)
    return short_hash(words) if words else None
