"""Which training rows belong to a slice: its rule, asked of a row's query and positives.

Legend: R rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gemma4vec.data.rows.rows import Row
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.inspection.attributes import ATTRIBUTES, Case, Facts, document_frequency, whole_text
from gemma4vec.inspection.predicates import Predicate
from gemma4vec.inspection.token_counts import TokenCounter
from gemma4vec.inspection.topics.space import space_of
from gemma4vec.retrieval.tokenize import choose_tokenizer
from gemma4vec.text.prompts import Document

Flags = npt.NDArray[np.bool_]
OF_THE_CORPUS = {"rarest_word", "unknown_words"}  # attributes that need the documents' frequencies
OF_THE_MODEL = {"gold_truncated", "evidence_cut"}
CACHED = 50_000  # texts
SHOWN_EVERY = 1_000  # rows


def needs_model(predicate: Predicate) -> bool:
    """Whether a rule asks where a model cuts texts."""
    return any(one.attribute in OF_THE_MODEL for one in predicate.conditions)


def facts_for_rows(
    predicate: Predicate, suite: RetrievalSuite, rows: Sequence[Row], counter: TokenCounter | None
) -> Facts:
    """What attributes of rows know: the suite's tokenizer, the model's limit, and the rows' documents as corpus.

    Frequencies are scaled to the suite's number of documents, since rules have its numbers.

    Raises:
        InputError: the rule asks where the model cuts texts, and no model with a limit is given; or for topics of a
            space that is not on disk.
    """
    if needs_model(predicate) and counter is None:
        raise InputError(f"the slice '{predicate}' asks where a model cuts texts; the inspected one has no known limit")
    tokenize = choose_tokenizer([whole_text(one) for one in suite.corpus], code=suite.code)
    facts = Facts(lru_cache(maxsize=CACHED)(tokenize))
    if any(one.attribute in OF_THE_CORPUS for one in predicate.conditions):
        found = document_frequency(_documents(rows), tokenize)
        scale = len(suite.corpus) / max(sum(len(row.pos) + len(row.neg) for row in rows), 1)
        facts = replace(facts, frequency={token: max(1, round(count * scale)) for token, count in found.items()})
    space = space_of(predicate)
    if space is not None:
        facts = replace(facts, topic_of=lambda query: space.topics([query])[0])
    if counter is not None:
        facts = replace(facts, count_tokens=lambda document: _count(counter, document), limit=counter.limit)
    return facts


def match_rows(
    rows: Sequence[Row],
    predicate: Predicate,
    facts: Facts,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Flags:
    """Whether each row belongs to the slice, bool[R]; only the attributes of the rule are computed."""
    wanted = [ATTRIBUTES[name] for name in dict.fromkeys(one.attribute for one in predicate.conditions)]
    found_R = np.zeros(len(rows), dtype=bool)
    for number, row in enumerate(rows):
        case = Case(row.query, row.pos)
        found_R[number] = predicate.fits({one.name: one.function(case, facts) for one in wanted})
        if number % SHOWN_EVERY == 0:
            progress(number, len(rows))
    return found_R


def random_rows(masks: Mapping[str, Flags], seed: int) -> dict[str, Flags]:
    """As many random rows of each source as match in it: the control arm; bool[R] by source."""
    generator = np.random.default_rng(seed)
    chosen: dict[str, Flags] = {}
    for name, mask_R in masks.items():
        chosen_R = np.zeros(len(mask_R), dtype=bool)
        chosen_R[generator.choice(len(mask_R), int(mask_R.sum()), replace=False)] = True
        chosen[name] = chosen_R
    return chosen


def _documents(rows: Sequence[Row]) -> Iterator[str]:
    return (whole_text(one) for row in rows for one in (*row.pos, *row.neg))


def _count(counter: TokenCounter, document: Document) -> int:
    return counter.count([document])[0]
