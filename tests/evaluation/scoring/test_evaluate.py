"""One model on one suite: what is ranked, what is refused, what is written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytrec_eval

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError, WorkError
from gemma4vec.evaluation.results.result import load_result, load_top
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_embedder import TextProgress


class HashedWords:
    """A small embedder: words hashed into 64 dimensions, unit length."""

    name = "hashed-words"
    fingerprint = "1"

    def describe(self) -> dict[str, Any]:
        return {"dtype": "fp32", "max_tokens": 8}

    def encode_query(self, texts: Sequence[str], *, progress: TextProgress | None = None) -> np.ndarray:
        vectors_ND = np.full((len(texts), 64), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors_ND[row, sum(map(ord, word)) % 64] += 1.0
        if progress:
            progress(len(texts), len(texts))
        return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)

    def encode_document(self, texts: Sequence[Document], *, progress: TextProgress | None = None) -> np.ndarray:
        if progress:
            progress(len(texts), len(texts))
        return self.encode_query([f"{document.title or ''} {document.text}" for document in texts])


def suite(**changes: Any) -> RetrievalSuite:
    words = ["sort", "graph", "nodes", "parse", "json", "file", "open", "socket", "render", "table"]
    corpus = [Document(f"{a} {b}", title=a if number % 3 else None) for number, (a, b) in enumerate(
        (first, second) for first in words for second in words if first != second
    )]  # fmt: skip
    queries = [f"{word} a {words[(number + 3) % 10]}" for number, word in enumerate(words)]
    ids = [f"d{number}" for number in range(len(corpus))]
    query_ids = [f"d{7 * number}" for number in range(10)]
    qrels = {
        query_id: {ids[(9 * row + step) % 90]: step for step in range(3)} | {query_id: 1}
        for row, query_id in enumerate(query_ids)
    }
    fields: dict[str, Any] = {"name": "small", "corpus_ids": ids, "corpus": corpus, "query_ids": query_ids}
    return RetrievalSuite(**{**fields, "queries": queries, "qrels": qrels, **changes})


def test_the_result_equals_plain_trec_eval_over_all_scores() -> None:
    chosen, model = suite(), HashedWords()
    result = evaluate(model, chosen)
    scores = model.encode_query(chosen.queries) @ model.encode_document(chosen.corpus).T
    run = {
        query_id: dict(zip(chosen.corpus_ids, map(float, scores[row]), strict=True))
        for row, query_id in enumerate(chosen.query_ids)
    }
    expected = pytrec_eval.RelevanceEvaluator(chosen.qrels, {"ndcg_cut.10", "map", "recall.100"}).evaluate(run)
    for ours, theirs in (("ndcg@10", "ndcg_cut_10"), ("map", "map"), ("recall@100", "recall_100")):
        mean = np.mean([expected[query_id][theirs] for query_id in chosen.query_ids])
        assert result.mean[ours] == pytest.approx(mean, abs=1e-9)
        assert result.tasks["small"][ours] == result.mean[ours]


def test_identical_ids_are_excluded_only_where_the_suite_says_so() -> None:
    # Every query's own id is a judged document, which its words do not reach first.
    own_only = {query_id: {query_id: 1, "d1": 1} for query_id in suite().query_ids}
    kept = evaluate(HashedWords(), suite(qrels=own_only), metrics=["recall@100"])
    excluded = evaluate(HashedWords(), suite(qrels=own_only, exclude_identical_ids=True), metrics=["recall@100"])
    assert kept.mean["recall@100"] == 1.0
    assert excluded.mean["recall@100"] == 0.5


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    out = tmp_path / "evals" / "small"
    result = evaluate(HashedWords(), suite(), out)
    again = load_result(out)
    assert again == result
    summary = json.loads((out / "metrics.json").read_text())
    assert set(summary) == {"model", "suite", "tasks", "mean", "settings"}
    assert summary["settings"]["model"] == {"dtype": "fp32", "max_tokens": 8}
    assert summary["settings"]["suite"]["fingerprint"] == suite().fingerprint
    assert set(summary["settings"]["seconds"]) == {"encode_documents", "encode_queries", "search", "total"}
    table = pq.read_table(out / "per_query.parquet")
    assert table.column_names == ["task", "query_id", "metric", "value"]
    assert table.num_rows == 10 * 4
    assert not [path for path in (tmp_path / "evals").iterdir() if path.name.startswith(".")]


def test_the_top_is_in_the_order_that_was_scored(tmp_path: Path) -> None:
    chosen = suite()
    evaluate(HashedWords(), chosen, tmp_path / "small")
    top = load_top(tmp_path / "small")
    assert list(top) == sorted(chosen.query_ids)
    for ranked in top.values():
        assert len(ranked) == 10
        assert ranked == sorted(ranked, key=lambda pair: (pair[1], pair[0]), reverse=True)


def test_bm25_ranks_only_documents_that_share_a_word(tmp_path: Path) -> None:
    # No query finds anything here but the first, which finds one document.
    chosen = suite(queries=["topological sorting"] + ["unheard-of"] * 9, code=True)
    chosen.corpus[4] = Document("def topological_sort(graph): ...")
    result = evaluate(Bm25Model(), chosen, tmp_path / "small")
    top = load_top(tmp_path / "small")
    assert {query_id: ranked[0][0] for query_id, ranked in top.items()} == {"d0": "d4"}
    assert result.settings["ranking"]["queries_without_documents"] == 9
    assert not result.settings["ranking"]["degenerate"]


class Broken(HashedWords):
    """Puts `value` into one document's vector."""

    def __init__(self, value: float) -> None:
        self.value = value

    def encode_document(self, texts: Sequence[Document], *, progress: TextProgress | None = None) -> np.ndarray:
        vectors_ND = super().encode_document(texts)
        vectors_ND[5] *= self.value
        return vectors_ND


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "not finite"), (0.0, "unit length"), (1.5, "unit length")])
def test_meaningless_vectors_are_refused_with_the_first_id_and_nothing_is_written(
    tmp_path: Path, value: float, reason: str
) -> None:
    with pytest.raises(WorkError, match=f"1 of 90 document vectors .*{reason}.*'d5'"):
        evaluate(Broken(value), suite(), tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        ("bfloat16", "try --dtype fp32; if that does not help, the model's weights are damaged"),
        ("float32", "the model's weights are damaged"),
    ],
)
def test_fp32_is_advised_where_it_is_not_in_use(dtype: str, advice: str) -> None:
    class Typed(Broken):
        def describe(self) -> dict[str, Any]:
            return super().describe() | {"dtype": dtype}

    with pytest.raises(WorkError) as refused:
        evaluate(Typed(np.nan), suite())
    assert str(refused.value).endswith(f"(first: id 'd5'); {advice}")


def test_a_collapsed_model_is_marked() -> None:
    class Collapsed(HashedWords):
        def encode_query(self, texts: Sequence[str], *, progress: TextProgress | None = None) -> np.ndarray:
            return np.full((len(texts), 4), 0.5, dtype=np.float32)

    ranking = evaluate(Collapsed(), suite()).settings["ranking"]
    assert ranking["degenerate"]
    assert ranking["tie_rate@10"] == 1.0
    assert not evaluate(HashedWords(), suite()).settings["ranking"]["degenerate"]


def test_ready_made_document_vectors_give_the_same_scores() -> None:
    class QueriesOnly(HashedWords):
        def encode_document(self, texts: Sequence[Document], *, progress: TextProgress | None = None) -> np.ndarray:
            raise AssertionError("the vectors were there already")

    chosen = suite()
    vectors_MD = HashedWords().encode_document(chosen.corpus)
    ready = evaluate(QueriesOnly(), chosen, documents_MD=vectors_MD)
    assert ready.per_query == evaluate(HashedWords(), chosen).per_query
    with pytest.raises(ValueError, match="89 document vectors"):
        evaluate(QueriesOnly(), chosen, documents_MD=vectors_MD[:-1])


def test_progress_ends_at_the_total() -> None:
    seen: dict[str, tuple[int, int]] = {}

    def note(stage: str, done: int, total: int) -> None:
        seen[stage] = (done, total)

    evaluate(HashedWords(), suite(), progress=note)
    assert seen == {"documents": (90, 90), "queries": (10, 10), "search": (10, 10)}


def test_a_result_may_be_called_by_its_part_in_a_run() -> None:
    assert evaluate(HashedWords(), suite()).model == "hashed-words"
    assert evaluate(HashedWords(), suite(), name="trained").model == "trained"


def test_a_folder_with_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"other files than a result .*thesis\.tex"):
        evaluate(HashedWords(), suite(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_second_evaluation_replaces_the_first(tmp_path: Path) -> None:
    evaluate(HashedWords(), suite(), tmp_path / "small")
    evaluate(HashedWords(), suite(), tmp_path / "small", metrics=["mrr@10"])
    assert load_result(tmp_path / "small").metrics == ["mrr@10"]


@pytest.mark.parametrize("damage", ["no metrics", "bad json", "cut parquet", "no parquet", "not an object"])
def test_a_damaged_result_is_one_line(tmp_path: Path, damage: str) -> None:
    out = tmp_path / "small"
    evaluate(HashedWords(), suite(), out)
    metrics, table = out / "metrics.json", out / "per_query.parquet"
    if damage == "no metrics":
        metrics.unlink()
    elif damage == "bad json":
        metrics.write_text(metrics.read_text()[:40])
    elif damage == "not an object":
        metrics.write_text("[1]")
    elif damage == "cut parquet":
        table.write_bytes(table.read_bytes()[:100])
    else:
        table.unlink()
    with pytest.raises(InputError, match="evaluat") as error:
        load_result(out)
    assert "\n" not in str(error.value)
