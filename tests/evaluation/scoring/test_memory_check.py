"""What does not fit is refused before a text is encoded; what fits in blocks goes through a file and scores alike."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hashed_words import HashedWords

from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.suites.group import make_group
from gemma4vec.data.suites.held_out_rows import RowSuite
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite, write_suite
from gemma4vec.data.suites.sts import make_sts
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring import dense_ranker as retrieve
from gemma4vec.evaluation.scoring import memory_check as suite_memory
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.memory_check import check_suite_memory, plan_retrieval
from gemma4vec.text.prompts import Document

GB = 10**9


class Vectors(HashedWords):
    """Says its dimension, as embedders do, and counts what it was asked for."""

    dimension = 64

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.asked: list[int] = []

    def encode_document(self, documents: Sequence[Document], **others: Any) -> np.ndarray:
        self.asked.append(len(documents))
        return super().encode_document(documents, **others)


def retrieval(queries: int = 6, documents: int = 3000) -> RetrievalSuite:
    return RetrievalSuite(
        "words",
        [f"d{i}" for i in range(documents)],
        [Document(f"sort {i} graph {i * 7} of {i % 13}") for i in range(documents)],
        [f"q{i}" for i in range(queries)],
        [f"graph {i * 7}" for i in range(queries)],
        {f"q{i}": {f"d{i}": 1} for i in range(queries)},
        role="dev",
    )


def pretend(monkeypatch: pytest.MonkeyPatch, available: float) -> None:
    """A machine with so little memory free."""
    for module in (suite_memory, retrieve):
        monkeypatch.setattr(module, "free_memory", lambda: int(available))


def test_where_vectors_go() -> None:
    small = plan_retrieval(queries=50, documents=10_000, dimension=768, depth=1000, available=8 * GB)
    assert (small.block, small.on_disk) == (10_000, 0)
    many = plan_retrieval(queries=50, documents=1_000_000, dimension=768, depth=1000, available=64 * GB)
    assert (many.block, many.on_disk) == (262_144, 1_000_000 * 768 * 4)
    tight = plan_retrieval(queries=50, documents=200_000, dimension=768, depth=1000, available=1 * GB)
    assert 1024 < tight.block < 200_000 and tight.on_disk == 200_000 * 768 * 4 and tight.need.total < GB
    # However large the corpus, blocks keep it within what is free; however many the queries, nothing does.
    assert plan_retrieval(50, 100_000_000, 768, 1000, GB).need.total < GB
    assert plan_retrieval(1_000_000, 100_000, 768, 1000, GB).need.total > 40 * GB


def test_what_does_not_fit_is_refused_before_anything_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Vectors()
    pretend(monkeypatch, 2e6)
    with pytest.raises(InputError) as error:
        evaluate(model, retrieval())  # type: ignore[arg-type]
    said = str(error.value)
    assert said.startswith("words: evaluating 6 queries over 3,000 documents in 64 dimensions takes about")
    assert "2 MB are free" in said and "max_queries, max_documents in a list of suites" in said and "\n" not in said
    assert model.asked == []


def test_in_little_memory_the_vectors_go_through_a_file_and_score_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, slow = Vectors(), Vectors()
    expected = evaluate(plain, retrieval())  # type: ignore[arg-type]
    # Three copies of the corpus's vectors, 2.3 MB, are more than half of what is free.
    pretend(monkeypatch, 4.5e6)
    monkeypatch.setattr(suite_memory.exact, "BLOCK", 256)
    by_blocks = evaluate(slow, retrieval())  # type: ignore[arg-type]
    assert plain.asked == [3000] and len(slow.asked) > 1 and sum(slow.asked) == 3000
    assert by_blocks.per_query == expected.per_query


def test_a_full_disk_is_seen_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 64 * GB)
    monkeypatch.setattr(suite_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"take 1 MB of disk .* 0 MB are free in .*GEMMA4VEC_CACHE"):
        check_suite_memory(retrieval(), Vectors(), 1000, in_memory=1000)


def test_every_task_of_a_group_is_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = retrieval(2, 5), retrieval(6, 3000)
    small.name = "small"
    pretend(monkeypatch, 1e6 + plan_retrieval(2, 5, 64, 1000, GB).need.total)
    model = Vectors()
    check_suite_memory(small, model, 1000)
    with pytest.raises(InputError, match="words: evaluating"):
        evaluate(model, make_group("both", [small, large]))  # type: ignore[arg-type]
    assert model.asked == []


def test_pairs_and_rows_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 1e5)
    numbers = range(300)
    sentences = [(f"a {i}", f"b {i}") for i in numbers]
    pairs = make_sts("pairs", [f"p{i}" for i in numbers], sentences, [float(i) for i in numbers], "")
    made = [Row(f"q {i}", [Document(f"p {i}")], [Document(f"n {i}")]) for i in numbers]
    rows = RowSuite("rows", "loss", [f"r{i}" for i in numbers], made)
    for suite, said in ((pairs, "300 pairs"), (rows, "300 rows")):
        with pytest.raises(InputError, match=said):
            check_suite_memory(suite, Vectors(), 1000)


def test_bm25_is_counted_by_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = retrieval()
    pretend(monkeypatch, 5e5)
    with pytest.raises(InputError, match=r"3,000 documents by BM25 takes about .*documents 1 MB"):
        check_suite_memory(suite, Bm25Model(), 10)
    pretend(monkeypatch, GB)
    check_suite_memory(suite, Bm25Model(), 10)


def test_a_model_that_does_not_say_its_dimension_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 1.0)
    check_suite_memory(retrieval(), HashedWords(), 1000)


def test_the_estimate_is_not_below_what_is_used() -> None:
    """Measured by numpy's own allocations: the peak is within the estimate, and not a small part of it."""
    suite, model = retrieval(200, 3000), Vectors()
    evaluate(model, retrieval(2, 5))  # type: ignore[arg-type]  # what is loaded at first use is not the suite's
    tracemalloc.start()
    evaluate(model, suite)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    estimated = plan_retrieval(200, 3000, 64, 1000, GB).need.total
    assert 0.2 * estimated < peak < estimated


def test_a_corpus_file_larger_than_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_suite(tmp_path / "words", retrieval())
    size = (tmp_path / "words" / "corpus.jsonl").stat().st_size
    monkeypatch.setattr("gemma4vec.data.suites.memory_check.free_memory", lambda: size)
    with pytest.raises(InputError, match=r"corpus.jsonl: a corpus of .* of memory, .* are free"):
        load_suite(tmp_path / "words")


def test_the_command_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("first", "second"):
        write_suite(tmp_path / name, retrieval(5, 5 if name == "first" else 3000))
        (tmp_path / name / "suite.yaml").write_text(f"name: {name}\n")
    model = Vectors()
    monkeypatch.setattr("gemma4vec.api.scoring.open_scorer", lambda *_, **__: model)
    pretend(monkeypatch, 1e6 + plan_retrieval(5, 5, 64, 1000, GB).need.total)
    suites = ["--suite", str(tmp_path / "first"), "--suite", str(tmp_path / "second")]
    assert execute(["eval", "some/model", *suites]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: second: evaluating 5 queries over 3,000 documents")
    assert model.asked == []  # the first suite was not begun either
