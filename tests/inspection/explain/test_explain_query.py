"""One query explained: each figure against a direct computation; sealed and final queries are refused."""

from dataclasses import replace

import numpy as np
import pytest
from probe_material import WordVectors, probe_suite

from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.inspection.explain.explain_query import characters_read, explain_query
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.probes.word_scores import WordScores
from gemma4vec.inspection.token_counts import TokenCounter
from gemma4vec.ledger.suite_halves import split_halves
from gemma4vec.retrieval.tokenize import tokenize_text
from gemma4vec.text.prompts import Document

SUITE = probe_suite(60)
SEALED = split_halves(SUITE.fingerprint, SUITE.query_ids)
assert SEALED is not None
OPEN = [key for key, one in zip(SUITE.query_ids, SEALED, strict=True) if not one]
MODEL = WordVectors(dimension=256)


def test_figures_are_those_of_the_texts() -> None:
    every = (explain_query(Subject(MODEL, "words"), SUITE, key) for key in OPEN)
    found = next(one for one in every if one["documents"][0]["rank"] == 1)
    row = SUITE.query_ids.index(found["query_id"])
    right, other = found["documents"]
    assert right["why"] == "right" and right["doc_id"] == f"d{row}" and right["rank"] == 1 and other["why"] == "below"
    query = MODEL.encode_query([SUITE.queries[row]])[0].astype(float)
    text = SUITE.corpus[row]
    score = float(MODEL.encode_document([text])[0] @ query)
    assert right["score"] == pytest.approx(score, abs=1e-6) and len(right["sentences"]) == 6
    worth = [one["worth"] for one in right["sentences"]]
    assert int(np.argmax(worth)) == 3  # the evidence
    start, end = right["sentences"][3]["start"], right["sentences"][3]["end"]
    assert text.text[start:end].startswith("A ")
    without = Document(text.text[:start] + text.text[end:].lstrip())
    expected = score - float(MODEL.encode_document([without])[0] @ query)
    assert worth[3] == pytest.approx(expected, abs=1e-6)
    scorer = WordScores(SUITE.corpus, tokenize_text)
    assert (
        right["bm25"]
        == pytest.approx(sum(right["words"].values()))
        == pytest.approx(scorer.score(SUITE.queries[row], text))
    )
    assert list(right["words"].values()) == sorted(right["words"].values(), reverse=True)
    assert found["gap"] is None and right["tokens"] is None and right["read"] is None


def test_what_stands_above_has_a_gap() -> None:
    lost = WordVectors(needs="prompt")
    rows = [explain_query(Subject(lost, "lost"), SUITE, key) for key in OPEN[:6]]
    above = [one for one in rows if any(document["why"] == "above" for document in one["documents"])]
    assert above and all(one["gap"] < 0 < one["gap_of_bm25"] for one in above)


def test_characters_read_is_the_longest_beginning() -> None:
    counter = TokenCounter(lambda documents: [len(one.text.split()) for one in documents], 3)
    text = "one two three four five"
    read = characters_read(Document(text), counter)
    assert text[:read].split() == ["one", "two", "three"] and len(text[: read + 1].split()) == 4
    assert characters_read(Document("one two"), counter) == 7


def test_refusals_are_one_line() -> None:
    subject = Subject(MODEL, "words")
    sealed = next(key for key in SUITE.query_ids if key not in OPEN)
    for asked, suite, message in (
        (sealed, SUITE, "is in the sealed half of probed; explain one of the open half"),
        ("x", SUITE, "probed has no query 'x'"),
        (OPEN[0], replace(SUITE, role="final"), "explain shows single queries: probed is a final suite"),
    ):
        with pytest.raises(InputError, match=message):
            explain_query(subject, suite, asked)
    with pytest.raises(InputError, match="leaves sentences out of vectors, and bm25 has none"):
        explain_query(Subject(Bm25Model(), "bm25"), SUITE, OPEN[0])
