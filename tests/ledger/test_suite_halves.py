"""Queries that are sealed in another suite: exactly where its record says so, never too few where it does not."""

import json
from dataclasses import replace

import numpy as np
from planted_suite import planted_suite

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.files import home
from gemma4vec.ledger.ledger import add
from gemma4vec.ledger.suite_access import contents_record
from gemma4vec.ledger.suite_contents import first_sealed, half_key, suite_record
from gemma4vec.ledger.suite_halves import hidden_words, sealed_elsewhere, shown_queries, split_halves

WHOLE = planted_suite(90, "whole")
PART = replace(sample_suite(WHOLE, 40, None), name="part")


def sealed_in_whole(suite: RetrievalSuite) -> np.ndarray:
    halves = split_halves(WHOLE.fingerprint, WHOLE.query_ids)
    assert halves is not None
    known = dict(zip(WHOLE.query_ids, halves.tolist(), strict=True))
    return np.array([known.get(key, False) for key in suite.query_ids])


def elsewhere(suite: RetrievalSuite) -> np.ndarray:
    return sealed_elsewhere(suite.fingerprint, suite.query_ids, suite.queries)


def test_the_sealed_half_begins_where_the_halves_say() -> None:
    halves = split_halves("abc", WHOLE.query_ids)
    begins = first_sealed("abc", WHOLE.query_ids)
    assert begins is not None and halves is not None
    assert [half_key("abc", key) >= begins for key in WHOLE.query_ids] == halves.tolist()
    assert first_sealed("abc", ["q"]) is None


def test_a_sample_hides_what_the_whole_suite_seals_and_the_other_way_round() -> None:
    assert not elsewhere(PART).any()  # the ledger does not know the whole
    add(home(), contents_record(WHOLE))
    assert elsewhere(PART).tolist() == sealed_in_whole(PART).tolist() and 10 < sealed_in_whole(PART).sum() < 30
    shown = shown_queries(PART.fingerprint, PART.query_ids, PART.queries)
    own = split_halves(PART.fingerprint, PART.query_ids)
    assert own is not None and shown.tolist() == (~own & ~sealed_in_whole(PART)).tolist()
    assert shown_queries(PART.fingerprint, PART.query_ids, None).tolist() == (~own).tolist()
    add(home(), contents_record(PART))
    both = elsewhere(WHOLE)
    of_part = dict(zip(PART.query_ids, own.tolist(), strict=True))
    assert both.tolist() == [of_part.get(key, False) for key in WHOLE.query_ids]  # others are not in the sample


def test_other_texts_under_the_same_ids_are_other_queries() -> None:
    add(home(), contents_record(WHOLE))
    other = [f"{text} again" if row % 2 else text for row, text in enumerate(PART.queries)]
    changed = replace(PART, queries=other)
    expected = [sealed and not row % 2 for row, sealed in enumerate(sealed_in_whole(PART).tolist())]
    assert elsewhere(changed).tolist() == expected


def test_a_record_of_an_older_version_hides_too_many_and_never_too_few() -> None:
    record = suite_record(WHOLE)
    assert record is not None
    body = {name: value for name, value in json.loads(json.dumps(record.body)).items() if name != "sealed_from"}
    add(home(), [replace(record, body=body)])
    hidden = elsewhere(PART)
    assert (hidden >= sealed_in_whole(PART)).all() and hidden.sum() < len(hidden)
    assert hidden_words(3, 1200) == (
        "3 of 1,200 queries are sealed, here or in a suite that shares them, and not shown"
    ) and not hidden_words(0, 5)
