"""The table: figures by hand, methods at one budget, and nothing that fools."""

import numpy as np
import pytest
from fanout_setting import make

from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.metrics import per_query
from gemma4vec.fanout.keep import Gates
from gemma4vec.fanout.measure import measure_fanout, score, sentence
from gemma4vec.fanout.methods import LOG, METHODS, NOISE, TO_GOLD, walk_points
from gemma4vec.fanout.setting import Choices, Setting
from gemma4vec.fanout.suggestions import suggest
from gemma4vec.fanout.training_rows import as_record, as_rows, walk_suite
from gemma4vec.fanout.walk import changes


@pytest.fixture(scope="module")
def setting() -> Setting:
    return make()


def test_every_method_stands_in_the_table_with_at_most_n_suggestions(setting: Setting) -> None:
    found = measure_fanout(setting)
    assert [row["method"] for row in found["rows"]] == [
        name for name in METHODS if name not in ("paraphrases", "suggestions")
    ]
    assert all(row["kept"] <= 4 for row in found["rows"])
    assert {row["method"] for row in found["rows"] if row["oracle"]} == {TO_GOLD}
    assert [row["method"] for row in found["rows"] if row["best_minus_noise"] is None] == [NOISE]
    assert [row["method"] for row in found["rows"] if row["gain_over_log"] is None] == [LOG]
    gains = {row["method"]: row["gain"]["mean"] for row in found["rows"]}
    for row in found["rows"]:
        over = row["gain_over_log"] or {"mean": 0.0, "p": 1.0}
        assert over["mean"] == pytest.approx(row["gain"]["mean"] - gains[LOG]) and 0 < over["p"] <= 1
    assert all("p_corrected" not in row for row in found["rows"] if row["oracle"])
    for row in found["rows"]:
        assert row["gain"]["low"] <= row["gain"]["mean"] <= row["gain"]["high"]
        assert row["best"]["mean"] >= 0  # the best of n with the label never loses: this is why it is no gain


def test_the_gain_is_that_of_rankings_scored_one_by_one(setting: Setting) -> None:
    method = METHODS[TO_GOLD]
    found = suggest(setting, method)
    row = next(row for row in measure_fanout(setting)["rows"] if row["method"] == TO_GOLD)
    gains, best = [], []
    for number, one in enumerate(found):
        fused: dict[int, float] = {}
        for ranking, weight in [
            (setting.own_rankings[number], 1.0),
            *((r, 0.3 / len(one.rankings)) for r in one.rankings),
        ]:
            for rank, place in enumerate(p for p in ranking if p >= 0):
                fused[int(place)] = fused.get(int(place), 0) + weight / (61 + rank)
        order = sorted(fused, key=lambda place: -fused[place])
        own = ndcg(setting, number, setting.own_rankings[number].tolist())
        gains.append(ndcg(setting, number, order) - own)
        best.append(max([own, *(ndcg(setting, number, ranking.tolist()) for ranking in one.rankings)]) - own)
    assert row["gain"]["mean"] == pytest.approx(np.mean(gains)) and row["best"]["mean"] == pytest.approx(np.mean(best))


def ndcg(setting: Setting, row: int, order: list[int]) -> float:
    places = [place for place in order if place >= 0][:100]
    key = setting.suite.query_ids[row]
    falling = -np.arange(len(places), dtype=float)[None]
    found = per_query(
        np.array([places]), falling, [key], setting.suite.corpus_ids, {key: setting.suite.qrels[key]}, ("ndcg@10",)
    )
    return float(found["ndcg@10"][0])


def test_texts_are_chosen_without_judgments() -> None:
    """Other judgments change the oracle's walks and the scores, and no text of any other method."""
    one, other = make(), make()
    other.suite.qrels.update({query: {"d3": 1} for query in other.suite.qrels})
    for method in (method for method in METHODS.values() if method.can_run(one)):
        same = [a.texts == b.texts for a, b in zip(suggest(one, method), suggest(other, method), strict=True)]
        assert all(same) or method.name in (TO_GOLD, NOISE), method.name  # noise has the angles of the gold walk


def test_a_writer_without_sense_gains_no_more_than_noise() -> None:
    """All directions lead to the same texts: the walk to gold must not look better than noise."""
    setting = make(log=["zzz qqq"], gates=Gates(faithful=-1.0))
    rows = {row["method"]: row for row in measure_fanout(setting)["rows"]}
    over = rows[TO_GOLD]["best_minus_noise"]
    assert over["mean"] == 0 and over["low"] == over["high"] == 0


def test_a_walk_writes_where_the_text_changes_and_nothing_without_a_way(setting: Setting) -> None:
    assert changes(["a", "a", "b", "a"]) == [0, 2, 3]
    assert len(walk_points(setting, 0, setting.queries_Qd[0])) == 0
    assert len(walk_points(setting, 0, -setting.queries_Qd[0])) == 0


def test_what_the_table_says() -> None:
    def row(method: str, mean: float, p: float) -> dict[str, object]:
        return {
            "method": method,
            "oracle": False,
            "gain": {"mean": mean, "low": mean - 0.01, "high": mean + 0.01},
            "p_corrected": p,
            "best_minus_noise": None,
        }

    assert sentence([row("a", 0.05, 0.2)]).startswith("No method gains without labels")
    assert sentence([row("a", 0.05, 0.01), row("b", 0.07, 0.2), row("c", -0.1, 0.001)]) == (
        "Without labels a gains most: +0.050 nDCG@10 [+0.040, +0.060]. These lose: c."
    )


def test_rows_and_records_name_the_target_and_what_each_text_finds(setting: Setting) -> None:
    found = list(walk_suite(setting, "gold"))
    assert [row for row, _, _ in found] == list(range(24)) and all(aim == [row] for row, aim, _ in found)
    with_texts = next(one for one in found if one[2].texts)
    rows = as_rows(setting, *with_texts)
    assert {row.group for row in rows} == {f"q{with_texts[0]}"}
    assert all(row.pos == [setting.suite.corpus[with_texts[0]]] for row in rows)
    record = as_record(setting, with_texts[0], with_texts[2])
    assert record["original"]["query"] == setting.suite.queries[with_texts[0]]
    variant = record["variants"][0]
    assert variant["query"] == with_texts[2].texts[0] and len(variant["documents"]) == 10
    vector = setting.embedder.encode_query([variant["query"]])[0]
    place = setting.suite.corpus_ids.index(variant["documents"][0]["doc_id"])
    assert variant["documents"][0]["score"] == pytest.approx(float(vector @ setting.documents_Md[place]), abs=1e-5)


def test_impossible_numbers_are_refused() -> None:
    for wrong, message in (
        (Choices(n=0), "--n 0"),
        (Choices(weight=-1), "--weight -1"),
        (Choices(gates=Gates(faithful=2)), "--faithful"),
    ):
        with pytest.raises(InputError, match=message):
            wrong.check()


def test_the_score_of_no_rankings_is_nothing(setting: Setting) -> None:
    assert score(setting, [], []).shape == (0,)
