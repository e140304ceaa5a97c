"""Training rows from the pairs of a folder: groups of near sections, and positive-aware hard negatives.

The other texts of a batch are a row's negatives; near ones teach more than any (Qu et al. 2021, arXiv:2010.08191;
Hofstätter et al. 2021, TAS-Balanced, arXiv:2104.06967). So near sections are a group, which shares a batch.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from gemma4vec.data.documents.hold_out import DocumentSplit
from gemma4vec.data.documents.pairs import Pair
from gemma4vec.data.documents.section import Section
from gemma4vec.data.mining.hard_negatives import Rules, build_corpus, mine
from gemma4vec.data.mining.searchers import Bm25Searcher
from gemma4vec.data.pycode.split import sort_by_hash
from gemma4vec.data.rows.rows import Row
from gemma4vec.machine.file_hashes import file_hash
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.recipe.sources import DOCUMENT_PAIRS, DocumentPair
from gemma4vec.retrieval.bm25 import BM25Index
from gemma4vec.retrieval.tokenize import choose_tokenizer
from gemma4vec.text.prompts import Document

FORMAT = 3  # a change of the rules needs another one, which builds all data again
# Candidates above this share of the positive's BM25 score are likely to answer the query too (Moreira et al. 2024,
# arXiv:2407.15831).
NEGATIVE_SHARE = 0.95
LAST_RANK = 60  # of the candidates; more, where more negatives are asked for
SPARE = 8  # candidates that may turn out to be parts of the section that answers, or of one that is drawn already
GROUP = 16
READ = 600  # characters of a section by which its neighbors are found


@dataclass(frozen=True)
class Settings:
    """What rows are made.

    Attributes:
        queries: file of the person's own queries; None: documents are held out for the test.
        pairs: kinds of pairs.
        sentences: most sentences of a section that become queries.
        negatives: hard negatives of each row.
    """

    queries: Path | None = None
    pairs: tuple[DocumentPair, ...] = DOCUMENT_PAIRS
    sentences: int = 2
    negatives: int = 4

    def as_json(self) -> str:
        """The settings, with the contents of the queries, for the name of the built folder."""
        queries = None if self.queries is None else file_hash(self.queries)
        return json.dumps([FORMAT, queries, self.pairs, self.sentences, self.negatives])


def make_rows(
    sections: Sequence[Section], pairs: Sequence[Pair], split: DocumentSplit, settings: Settings
) -> list[Row]:
    """Rows of the training sections with negatives. Rows of one section are in different groups.

    A group is `batch.group_rows` rows of a batch, and another row's section must not be a wrong negative there.
    """
    train = set(split.train)
    kept = [pair for pair in pairs if pair.place in train and pair.kind in settings.pairs]
    group_of = dict(zip(split.train, group_near([sections[place] for place in split.train]), strict=True))
    turn: Counter[str] = Counter()
    rows = []
    for pair in kept:
        unit = sections[pair.place].unit
        group = f"{group_of[pair.place]}-{turn[unit]}"
        turn[unit] += 1
        rows.append(Row(pair.query, [pair.answer], task=pair.kind, group=group))
    answers, corpus = [sections[pair.place] for pair in kept], [sections[place] for place in split.train]
    return mine_negatives(rows, answers, corpus, settings.negatives)


def mine_negatives(rows: list[Row], answers: Sequence[Section], corpus: Sequence[Section], negatives: int) -> list[Row]:
    """The rows with negatives that BM25 finds, without any part of the section that answers.

    Where too few candidates score low enough, as for a query that shares few words with its answer, further sections
    are drawn. So only a folder with too few sections has rows with too few negatives.

    Args:
        rows: rows without negatives.
        answers: the section that answers each row.
        corpus: sections that may become negatives.
        negatives: most of each row.
    """
    if negatives < 1 or not rows:
        return rows
    documents = build_corpus(rows, [section.as_document() for section in corpus])
    unit_of = {section.as_document(): section.unit for section in corpus}
    # What a row's query was taken from is a text of its own.
    unit_of |= {row.pos[0]: answer.unit for row, answer in zip(rows, answers, strict=True)}
    rules = Rules(negatives + SPARE, (1, max(LAST_RANK, negatives + SPARE)), share=NEGATIVE_SHARE, choose="draw")
    code = sum(section.code for section in corpus) > len(corpus) / 2
    searcher = Bm25Searcher(documents.documents, code=code)
    mined = []
    with ProgressBar("hard negatives", "rows") as bar:
        for found, answer in zip(mine(rows, documents, rules, bm25=searcher, progress=bar), answers, strict=True):
            used, kept = {answer.unit}, list[Document]()
            for one in chain(found.row.neg, _drawn(found.row.query, corpus, negatives + SPARE), _others(corpus)):
                if len(kept) == negatives:
                    break
                if unit_of[one] not in used:
                    used.add(unit_of[one])
                    kept.append(one)
            mined.append(replace(found.row, neg=kept))
    return mined


def _drawn(query: str, corpus: Sequence[Section], count: int) -> list[Document]:
    """Sections drawn with a seed from the query."""
    digest = hashlib.sha256(query.encode("utf-8", "surrogatepass")).digest()
    places = np.random.default_rng(list(digest[:8])).integers(0, len(corpus), count)
    return [corpus[place].as_document() for place in places.tolist()]


def _others(corpus: Sequence[Section]) -> Iterator[Document]:
    """All sections, where draws met the same ones too often: a folder has few sections then."""
    return (section.as_document() for section in corpus)


def group_near(sections: Sequence[Section], size: int = GROUP) -> list[int]:
    """The number of each section's group. Groups have `size` sections, the last ones fewer.

    In the order of the hashes of their ids, each section that is in no group takes the `size - 1` best by BM25 of those
    left. Parts of one section are never in one group: they answer the same queries.
    """
    if not sections:
        return []
    texts = [f"{section.title or ''} {section.text}" for section in sections]
    index = BM25Index.build(texts, choose_tokenizer(texts))
    place_of = {section.id: place for place, section in enumerate(sections)}
    free = np.ones(len(sections), dtype=bool)
    groups = np.full(len(sections), -1, dtype=np.int64)
    number = 0
    for key in sort_by_hash(place_of):
        first = place_of[key]
        if not free[first]:
            continue
        scores_M = np.where(free, index.scores(texts[first][:READ]), -1.0)
        scores_M[first] = np.inf
        units: set[str] = set()
        for place in np.argsort(-scores_M, kind="stable").tolist():
            if not free[place] or len(units) == size:
                break
            if sections[place].unit not in units:
                units.add(sections[place].unit)
                groups[place], free[place] = number, False
        number += 1
    return groups.tolist()
