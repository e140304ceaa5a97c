"""Texts of suites: opened when a page needs one, and kept while it is looked at."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import Gemma4VecError
from gemma4vec.evaluation.scoring.open_any_suite import open_retrieval_suite
from gemma4vec.retrieval.tokenize import WordTokenizer, choose_tokenizer
from gemma4vec.text.prompts import Document

_KEPT = 3
_SAMPLE = 1000  # documents that the language is guessed from


@dataclass(frozen=True)
class Texts:
    """One suite's texts by id, or why they are not shown.

    Attributes:
        suite: None where it is gone or has changed.
        problem: why; empty where the texts are there.
    """

    suite: RetrievalSuite | None
    problem: str = ""

    @cached_property
    def queries(self) -> Mapping[str, str]:
        """Query id -> text."""
        return {} if self.suite is None else dict(zip(self.suite.query_ids, self.suite.queries, strict=True))

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Document id -> its place."""
        return {} if self.suite is None else {key: place for place, key in enumerate(self.suite.corpus_ids)}

    @cached_property
    def tokenize(self) -> WordTokenizer | None:
        """BM25's words on this suite."""
        if self.suite is None:
            return None
        return choose_tokenizer([one.text for one in self.suite.corpus[:_SAMPLE]], self.suite.code)

    def document(self, key: str) -> Document | None:
        """A document; None if it is not known."""
        place = self.places.get(key)
        return None if self.suite is None or place is None else self.suite.corpus[place]


class SuiteTexts:
    """The suites that were looked at last. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Texts] = OrderedDict()

    def of_inspection(self, about: Mapping[str, Any]) -> Texts:
        """The suite of an inspection, opened by the words that it was opened by."""
        return self.opened(about["suite"]["open"], about["suite"]["fingerprint"])

    def opened(self, how: Mapping[str, Any], fingerprint: str) -> Texts:
        """The suite that `spec`, `task` and `mirror` open, if its contents are those of a result."""
        with self._lock:
            known = self._kept.get(fingerprint)
            if known is not None:
                self._kept.move_to_end(fingerprint)
                return known
            try:
                suite = open_retrieval_suite(how)
            except (Gemma4VecError, OSError, TypeError, KeyError) as error:
                return Texts(None, f"The suite's texts are gone, so ids are shown ({' '.join(str(error).split())}).")
            if suite.fingerprint != fingerprint:
                return Texts(None, "The suite has changed since, so ids are shown and no texts.")
            self._kept[fingerprint] = Texts(suite)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept[fingerprint]
