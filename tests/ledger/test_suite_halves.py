"""Queries that are sealed in another suite: exactly where its record says so, never too few where it does not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_suite import planted_suite

from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite, write_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.ledger.ledger import add
from gemma4vec.ledger.suite_access import contents_record
from gemma4vec.ledger.suite_contents import half_key, split_order, suite_record
from gemma4vec.ledger.suite_halves import (
    hidden_words,
    sealed_elsewhere,
    sealed_half,
    shown_half,
    shown_queries,
    split_halves,
)
from gemma4vec.pipeline.suites import freeze_samples
from gemma4vec.recipe.plans.matrix import SuiteSample

WHOLE = planted_suite(90, "whole")
PART = replace(sample_suite(WHOLE, 40, None), name="part")
# The same as a suite of its own, which says of no whole that it is a part of it.
ALONE = replace(PART, halves=None)


def sealed_in_whole(suite: RetrievalSuite) -> np.ndarray:
    halves = split_halves(WHOLE.fingerprint, WHOLE.query_ids)
    assert halves is not None
    known = dict(zip(WHOLE.query_ids, halves.tolist(), strict=True))
    return np.array([known.get(key, False) for key in suite.query_ids])


def elsewhere(suite: RetrievalSuite) -> np.ndarray:
    return sealed_elsewhere(suite.fingerprint, suite.query_ids, suite.queries)


def test_the_sealed_half_begins_where_the_halves_say() -> None:
    halves = split_halves("abc", WHOLE.query_ids)
    own = split_order("abc", WHOLE.query_ids)
    assert own is not None and halves is not None
    assert [half_key("abc", key) >= own.begins for key in WHOLE.query_ids] == halves.tolist()
    assert int(halves.sum()) == 45 and split_order("abc", ["q"]) is None


def test_a_part_hides_what_the_whole_suite_seals_and_the_other_way_round() -> None:
    assert not elsewhere(ALONE).any()  # the ledger does not know the whole
    add(home(), contents_record(WHOLE))
    assert elsewhere(ALONE).tolist() == sealed_in_whole(ALONE).tolist() and 10 < sealed_in_whole(ALONE).sum() < 30
    shown, own = shown_half(ALONE), sealed_half(ALONE)
    assert own is not None and shown.tolist() == (~own & ~sealed_in_whole(ALONE)).tolist()
    assert shown_queries(ALONE.fingerprint, ALONE.query_ids, None).tolist() == (~own).tolist()
    add(home(), contents_record(ALONE))
    both = elsewhere(WHOLE)
    of_part = dict(zip(PART.query_ids, own.tolist(), strict=True))
    assert both.tolist() == [of_part.get(key, False) for key in WHOLE.query_ids]  # others are not in the sample


def test_a_sample_has_the_halves_of_the_whole() -> None:
    sealed = sealed_in_whole(PART)
    found = sealed_half(PART)
    assert found is not None and found.tolist() == sealed.tolist() and shown_half(PART).tolist() == (~sealed).tolist()
    again = sealed_half(sample_suite(sample_suite(WHOLE, 60, 70), 40, None))
    assert again is not None and again.tolist() == sealed.tolist()  # a sample of a sample, too
    for one in (WHOLE, PART):
        add(home(), contents_record(one))
    assert not (elsewhere(PART) & ~sealed).any() and not (elsewhere(WHOLE) & ~sealed_in_whole(WHOLE)).any()
    # The ledger says whose halves they are, also to those who have the sample's contents alone.
    by_contents = shown_queries(PART.fingerprint, PART.query_ids, None)
    assert by_contents.tolist() == (~sealed).tolist() == shown_half(ALONE).tolist()


def test_the_ledger_learns_of_a_sample_that_an_older_version_recorded() -> None:
    add(home(), contents_record(ALONE))
    own, sealed = sealed_half(ALONE), sealed_in_whole(PART)
    assert own is not None and own.tolist() != sealed.tolist()
    add(home(), contents_record(PART))
    assert not contents_record(PART) and not contents_record(ALONE)
    now = sealed_half(ALONE)
    assert now is not None and now.tolist() == sealed.tolist()


def test_a_sample_on_disk_has_the_halves_of_the_whole(tmp_path: Path) -> None:
    write_suite(tmp_path / "whole", replace(WHOLE, role="dev"))
    wanted = SuiteSample(suite=str(tmp_path / "whole"), max_queries=40)
    (folder,), _ = freeze_samples(tmp_path, [wanted], [], lambda: pytest.fail("no training data is needed"))
    found = load_suite(folder)
    halves = sealed_half(found)
    assert len(found.queries) == 40 and halves is not None
    assert halves.tolist() == sealed_in_whole(found).tolist() != split_of(found)
    file = folder / "sampled_from.json"
    file.write_text(json.dumps({key: json.loads(file.read_text())[key] for key in ("name", "fingerprint")}))
    assert load_suite(folder).halves is None  # of an older version
    file.write_text('{"sealed_from": ')
    with pytest.raises(InputError, match=r"sampled_from\.json is damaged .*; sample the suite again"):
        load_suite(folder)


def split_of(suite: RetrievalSuite) -> list[bool]:
    own = split_order(suite.fingerprint, suite.query_ids)
    assert own is not None
    return [own.seals(key) for key in suite.query_ids]


def test_a_sample_of_sealed_queries_alone_is_refused_and_of_open_ones_has_no_halves() -> None:
    def only(sealed: bool) -> RetrievalSuite:
        ids = [key for key, one in zip(WHOLE.query_ids, sealed_in_whole(WHOLE).tolist(), strict=True) if one == sealed]
        return replace(PART, query_ids=ids[:5], queries=["x"] * 5, qrels={key: WHOLE.qrels[key] for key in ids[:5]})

    with pytest.raises(InputError, match="part: all of its 5 queries are sealed in the suite that it is a sample of"):
        sealed_half(only(True))
    assert sealed_half(only(False)) is None


def test_other_texts_under_the_same_ids_are_other_queries() -> None:
    add(home(), contents_record(WHOLE))
    other = [f"{text} again" if row % 2 else text for row, text in enumerate(PART.queries)]
    changed = replace(ALONE, queries=other)
    expected = [sealed and not row % 2 for row, sealed in enumerate(sealed_in_whole(PART).tolist())]
    assert elsewhere(changed).tolist() == expected


def test_a_record_of_an_older_version_hides_too_many_and_never_too_few() -> None:
    record = suite_record(WHOLE)
    assert record is not None
    body = {name: value for name, value in json.loads(json.dumps(record.body)).items() if name != "sealed_from"}
    add(home(), [replace(record, body=body)])
    hidden = elsewhere(ALONE)
    assert (hidden >= sealed_in_whole(PART)).all() and hidden.sum() < len(hidden)
    assert hidden_words(3, 1200) == (
        "3 of 1,200 queries are sealed, here or in a suite that shares them, and not shown"
    ) and not hidden_words(0, 5)
