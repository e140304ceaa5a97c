"""Every kind of task: scores against slow or foreign computations, what is refused, what is kept."""

import numpy as np
import pytest
import torch
from hashed_words import Broken, Constant, HashedWords
from scipy import stats
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator

from gemma4vec.data.rows.rows import Row
from gemma4vec.data.suites.group import make_group
from gemma4vec.data.suites.held_out_rows import RowSuite
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.data.suites.sts import make_sts
from gemma4vec.errors import InputError, WorkError
from gemma4vec.evaluation.results.result import load_result, load_top
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.text.prompts import Document

WORDS = ["sort", "graph", "nodes", "parse", "json", "file", "open", "socket", "render", "table", "matrix", "token"]


def pairs(name="pairs", n=40, seed=0):
    generator = np.random.default_rng(seed)
    made, gold = [], []
    for _ in range(n):
        words = list(generator.choice(WORDS, 4, replace=False))
        kept = int(generator.integers(0, 4))
        made.append((" ".join(words), " ".join([*words[:kept], *generator.choice(WORDS, 4 - kept)])))
        gold.append(float(np.clip(kept + generator.normal(0, 1), 0, 5)))
    return make_sts(name, [f"p{i}" for i in range(n)], made, gold, "here")


def rows(kind="local-rank", n=10, **settings):
    made = [
        # Of every third row the wrong answer has the query's own word.
        Row(
            f"how to {word} {n}",
            [Document(f"the {word} answer")],
            [Document(f"{word} to how" if n % 3 == 0 else f"the {WORDS[n - 2]} answer"), Document("no")],
        )
        for n, word in enumerate(WORDS[:n])
    ]
    return RowSuite("held", kind, [str(i) for i in range(1, n + 1)], made, **settings)


def retrieval(name="small", offset=0):
    return RetrievalSuite(
        name=name,
        corpus_ids=[f"d{n}" for n in range(12)],
        corpus=[Document(f"the {word} function") for word in WORDS],
        query_ids=[f"q{n}" for n in range(6)],
        queries=[f"how to {word}" for word in WORDS[offset : offset + 6]],
        qrels={f"q{n}": {f"d{n + offset}": 1} for n in range(6)},
    )


def test_similarity_equals_sentence_transformers_own_evaluator():
    class Spread(HashedWords):
        """Without ties, which rounding would break here and there."""

        def encode_query(self, texts, *, progress=None):
            seeds = [sum(ord(letter) * place for place, letter in enumerate(text)) for text in texts]
            vectors_ND = np.stack([np.random.default_rng(seed).normal(size=8) for seed in seeds]).astype(np.float32)
            return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)

    suite, model = pairs(), Spread()
    result = evaluate(model, suite)

    class Encoder:
        similarity_fn_name = "cosine"
        model_card_data = type("Card", (), {"set_evaluation_metrics": lambda *_: None})()

        def encode(self, texts, **_):
            return model.encode_query(texts)

    theirs = EmbeddingSimilarityEvaluator(suite.first, suite.second, suite.gold, write_csv=False)
    theirs.embed_inputs = lambda _, texts, **__: model.encode_query(texts)  # type: ignore[method-assign]
    found = theirs(Encoder())
    assert result.mean["spearman"] == pytest.approx(found["spearman_cosine"], abs=1e-6)
    assert result.mean["pearson"] == pytest.approx(found["pearson_cosine"], abs=1e-6)


def test_every_pairs_similarity_is_kept_and_reads_back(tmp_path):
    result = evaluate(HashedWords(), pairs(), tmp_path / "pairs")
    again = load_result(tmp_path / "pairs")
    assert again == result and (again.kind, again.metric, again.metrics) == ("sts", "spearman", ["spearman", "pearson"])
    kept = again.per_query["pairs"]
    assert len(kept) == 40 and set(kept["p0"]) == {"similarity", "gold"}
    values, gold = ([one[name] for one in kept.values()] for name in ("similarity", "gold"))
    assert again.mean["spearman"] == pytest.approx(stats.spearmanr(values, gold).statistic)
    interval = again.interval()
    assert interval.low < interval.mean < interval.high and interval.mean == pytest.approx(again.mean["spearman"])
    with pytest.raises(InputError, match="one figure of all pairs"):
        again.values("spearman")


def test_rank_tests_equal_a_slow_loop():
    suite, model = rows(), HashedWords()
    result = evaluate(model, suite)
    for key, row in zip(suite.ids, suite.rows, strict=True):
        query = model.encode_query([row.query])[0]
        good, *bad = (float(query @ vector) for vector in model.encode_document([*row.pos, *row.neg]))
        rank = 1 + sum(score >= good - 1e-6 for score in bad)
        assert result.per_query["held"][key] == {"acc@1": float(rank == 1), "mrr": pytest.approx(1 / rank)}
    assert 0.0 < result.mean["acc@1"] < 1.0 and result.metric == "mrr"


def test_each_positive_is_ranked_on_its_own():
    row = Row("sort", [Document("sort"), Document("graph")], [Document("sort table")])
    result = evaluate(HashedWords(), RowSuite("two", "local-rank", ["1"], [row]))
    assert result.mean == {"acc@1": 0.5, "mrr": 0.75}


def test_the_loss_is_cross_entropy_over_the_block_and_own_negatives():
    suite, model = rows("loss", block=5), HashedWords()
    result = evaluate(model, suite)
    losses = []
    for start in (0, 5):
        block = suite.rows[start : start + 5]
        queries = torch.tensor(model.encode_query([row.query for row in block]))
        positives = torch.tensor(model.encode_document([row.pos[0] for row in block]))
        negatives = torch.tensor(np.stack([model.encode_document(row.neg) for row in block]))
        scores = queries @ positives.T / suite.temperature
        own = torch.einsum("nd,nkd->nk", queries, negatives) / suite.temperature
        logits = torch.cat([scores, own], dim=1).double()
        losses += torch.nn.functional.cross_entropy(logits, torch.arange(5), reduction="none").tolist()
    assert [one["loss"] for one in result.per_query["held"].values()] == pytest.approx(losses, rel=1e-5)
    assert result.settings["quality"]["temperature"] == 0.05 and result.metric == "loss"


def test_a_last_row_alone_goes_with_the_block_before_it():
    short, long = rows("loss", n=6, block=5), rows("loss", n=6, block=6)
    assert evaluate(HashedWords(), short).per_query == evaluate(HashedWords(), long).per_query


def test_a_row_does_not_compete_with_its_own_answer_of_another_row():
    twice = [Row("sort it", [Document("the sort answer")]), Row("sorting", [Document("the sort answer")])]
    result = evaluate(HashedWords(), RowSuite("twice", "loss", ["1", "2"], twice))
    assert result.mean["loss"] == 0.0


@pytest.mark.parametrize("suite", [pairs(), rows(), rows("loss"), retrieval()], ids=lambda suite: suite.kind)
def test_vectors_that_are_not_finite_are_refused_by_every_kind(suite):
    with pytest.raises(WorkError, match="are not finite"):
        evaluate(Broken(), suite)


@pytest.mark.parametrize("suite", [pairs(), rows(), retrieval()], ids=lambda suite: suite.kind)
def test_a_collapsed_model_is_marked_by_every_kind_and_never_scores_by_rounding(suite):
    result = evaluate(Constant(), suite)
    assert (result.settings.get("quality") or result.settings["ranking"])["degenerate"]
    if suite.kind == "sts":
        assert result.mean == {"spearman": 0.0, "pearson": 0.0}
        assert result.interval().method == "degenerate"
    if suite.kind == "local-rank":
        assert result.mean["acc@1"] == 0.0


def test_bm25_has_no_vectors():
    with pytest.raises(InputError, match=r"pairs .sts. needs vectors, and bm25 has none"):
        evaluate(Bm25Model(), pairs())


def test_a_group_has_a_score_for_each_task_and_one_mean(tmp_path):
    one, other = retrieval("one"), retrieval("other", 3)
    group = make_group("both", [one, other])
    result = evaluate(HashedWords(), group, tmp_path / "both")
    alone = [evaluate(HashedWords(), suite).mean["ndcg@10"] for suite in (one, other)]
    assert [result.tasks[name]["ndcg@10"] for name in ("one", "other")] == alone
    assert result.mean["ndcg@10"] == pytest.approx(np.mean(alone))
    again = load_result(tmp_path / "both")
    assert again == result
    assert set(again.settings["ranking"]["tasks"]) == set(again.settings["suite"]["tasks"]) == {"one", "other"}
    assert load_top(tmp_path / "both", "other")["q0"] != load_top(tmp_path / "both", "one")["q0"]


def test_a_look_at_a_group_is_a_look_at_each_of_its_tasks():
    one, other = retrieval("one"), retrieval("other", 3)
    evaluate(HashedWords(), make_group("both", [one, other]))
    with open_ledger(home()) as ledger:
        seen = {row["suite_fingerprint"] for row in ledger.rows("SELECT DISTINCT suite_fingerprint FROM looks")}
    assert {one.fingerprint, other.fingerprint} < seen


def test_a_suite_may_have_another_main_metric():
    suite = retrieval()
    suite.metric = "mrr@5"
    result = evaluate(HashedWords(), suite)
    assert (result.metric, "mrr@5" in result.metrics) == ("mrr@5", True)


def test_a_corpus_too_large_for_memory_goes_through_a_file_and_scores_the_same(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("gemma4vec.evaluation.scoring.dense_ranker.IN_MEMORY", 5)
    by_file = evaluate(HashedWords(), retrieval(), progress=lambda *place: seen.append(place))
    monkeypatch.undo()
    assert by_file.per_query == evaluate(HashedWords(), retrieval()).per_query
    assert [place for place in seen if place[0] == "documents"] == [("documents", done, 12) for done in (5, 10, 12)]
    assert seen[-1] == ("search", 6, 6)
