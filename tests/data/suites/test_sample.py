"""A sample of a suite depends on ids alone, keeps judged documents, and has its own name."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.text.prompts import Document


def suite(queries: int = 10, documents: int = 40, judged: int = 2) -> RetrievalSuite:
    return RetrievalSuite(
        name="made",
        corpus_ids=[f"d{i}" for i in range(documents)],
        corpus=[Document(f"text {i}", f"title {i}") for i in range(documents)],
        query_ids=[f"q{i}" for i in range(queries)],
        queries=[f"query {i}" for i in range(queries)],
        qrels={f"q{i}": {f"d{(i * judged + j) % documents}": j for j in range(1, judged + 1)} for i in range(queries)},
        exclude_identical_ids=True,
        role="dev",
        code=True,
    )


def shuffled(whole: RetrievalSuite, seed: int) -> RetrievalSuite:
    generator = random.Random(seed)
    documents = list(zip(whole.corpus_ids, whole.corpus, strict=True))
    queries = list(zip(whole.query_ids, whole.queries, strict=True))
    generator.shuffle(documents)
    generator.shuffle(queries)
    return replace(
        whole,
        corpus_ids=[key for key, _ in documents],
        corpus=[document for _, document in documents],
        query_ids=[key for key, _ in queries],
        queries=[query for _, query in queries],
    )


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(1, 50), st.integers(0, 99))
def test_a_sample_keeps_judged_documents_and_does_not_depend_on_order(queries: int, documents: int, seed: int) -> None:
    whole = suite()
    sample = sample_suite(whole, queries, documents)
    assert len(sample.queries) == min(queries, 10) and set(sample.qrels) == set(sample.query_ids)
    judged = {document for query in sample.query_ids for document in whole.qrels[query]}
    assert judged <= set(sample.corpus_ids)
    assert len(sample.corpus_ids) == max(len(judged), min(documents, 40))
    assert all(sample.qrels[query] == whole.qrels[query] for query in sample.query_ids)
    texts = dict(zip(whole.corpus_ids, whole.corpus, strict=True))
    assert all(texts[key] == text for key, text in zip(sample.corpus_ids, sample.corpus, strict=True))
    assert (
        dict(zip(sample.query_ids, sample.queries, strict=True)).items()
        <= dict(zip(whole.query_ids, whole.queries, strict=True)).items()
    )
    again = sample_suite(shuffled(whole, seed), queries, documents)
    assert again.fingerprint == sample.fingerprint and again.name == sample.name


def test_documents_judged_as_not_relevant_may_be_ordinary_ones() -> None:
    whole = suite(judged=4)
    for query in whole.qrels:
        first = next(iter(whole.qrels[query]))
        whole.qrels[query] |= {key: 0 for key in whole.qrels[query] if key != first}
    every, few = sample_suite(whole, 10, 15), sample_suite(whole, 10, 15, keep="relevant")
    relevant = {key for found in whole.qrels.values() for key, grade in found.items() if grade}
    assert len(every.corpus_ids) == 40 and len(relevant) == 10
    assert len(few.corpus_ids) == 15 and relevant <= set(few.corpus_ids)
    for query, found in few.qrels.items():  # judgments of those that are left, zeros too
        assert found == {key: grade for key, grade in whole.qrels[query].items() if key in few.corpus_ids}
        assert max(found.values()) == 1
    assert any(0 in found.values() for found in few.qrels.values())


def test_another_seed_is_another_sample() -> None:
    first, second = sample_suite(suite(), 5, 20), sample_suite(suite(), 5, 20, seed=1)
    assert second.name == "made-5x20-seed1" and set(first.query_ids) != set(second.query_ids)
    assert sample_suite(shuffled(suite(), 3), 5, 20, seed=1).fingerprint == second.fingerprint


def test_a_sample_has_its_own_name_and_keeps_the_options() -> None:
    sample = sample_suite(suite(), 5, 20)
    assert sample.name == "made-5x20"
    assert (sample.exclude_identical_ids, sample.role, sample.code) == (True, "dev", True)


def test_a_sample_that_is_not_smaller_is_the_whole_suite() -> None:
    whole = suite()
    assert sample_suite(whole, None, None) is whole
    assert sample_suite(whole, 10, 40) is whole
    assert sample_suite(whole, 99, 99) is whole


def test_a_larger_sample_contains_the_smaller_one() -> None:
    small, large = sample_suite(suite(), 4, 20), sample_suite(suite(), 4, 30)
    assert set(small.corpus_ids) < set(large.corpus_ids) and small.query_ids == large.query_ids
