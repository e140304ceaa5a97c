"""What a suite can show, before training."""

import numpy as np
import pytest

from gemma4vec.evaluation.planning.power_forecast import TYPICAL_SD, forecast_power
from gemma4vec.evaluation.results.result import Result, save_result
from gemma4vec.files import home
from gemma4vec.ledger.recording import record_evaluation, record_look
from gemma4vec.statistics.power import forecast_detectable, smallest_detectable

CONTENTS = "c" * 64


def add(recipe: str, number: int, values: np.ndarray) -> None:
    scores = {f"q{row:03}": {"ndcg@10": float(value)} for row, value in enumerate(values)}
    run = {"run_id": f"{recipe}{number}", "recipe_id": recipe}
    settings = {
        "model_fingerprint": f"{recipe}{number}",
        "suite": {"fingerprint": CONTENTS},
        "look": f"{recipe}{number}",
        "created": f"2026-01-01T00:00:0{number}.000000+00:00",
        "run": run,
    }
    result = Result("trained", "s", {"s": scores}, settings)
    folder = home() / f"{recipe}{number}" / "evals" / "trained" / "s"
    record_look("trained", "s", settings, ["ndcg@10"])
    save_result(result, folder, [])
    record_evaluation(folder)


def test_without_a_past_the_spread_is_the_typical_one() -> None:
    found = forecast_power("s", CONTENTS, 50)
    assert found.alone == found.in_family == pytest.approx(forecast_detectable(TYPICAL_SD, 50))
    assert found.alone == pytest.approx(0.04, abs=0.002)  # the figure of docs/concepts/statistics.md
    assert "50 queries: differences under 0.040 will mostly go unseen between two trained models" in found.sentence()


def test_earlier_pairs_and_seeds_give_the_spreads() -> None:
    random = np.random.default_rng(0)
    base = random.uniform(0.3, 0.6, 40)
    rows = [base + random.normal(shift, 0.03, 40) for shift in (0.0, 0.04)]
    for number, values in enumerate(rows):
        add("r", number, values)
    found = forecast_power("s", CONTENTS, 40)
    assert found.alone == pytest.approx(smallest_detectable(rows[0] - rows[1]))
    assert (found.family, found.run_sd) == (2, None)  # two models were seen: one comparison, and the one to come
    assert found.in_family > found.alone
    seeds = forecast_power("s", CONTENTS, 40, runs=6)
    assert seeds.run_sd == pytest.approx(np.std([row.mean() for row in rows], ddof=1))
    assert seeds.alone > found.alone and "two recipes with 6 seeds each" in seeds.sentence()
    assert forecast_power("s", "other contents", 40).sd == TYPICAL_SD


def test_of_several_tasks_the_smallest_widens_the_whole() -> None:
    alike, one, uneven = (forecast_power("s", "contents", 100, tasks=tasks).alone for tasks in ((50, 50), (), (98, 2)))
    assert alike == pytest.approx(one) and uneven == pytest.approx(one * (100 * (1 / 98 + 1 / 2)) ** 0.5 / 2)
