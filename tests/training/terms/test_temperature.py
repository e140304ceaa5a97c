"""A temperature and projections that are trained beside the model: values, bounds, checkpoints, the log."""

import math
from pathlib import Path

import pytest
import torch
from tiny_model import write_tiny
from tiny_run import make_stage
from torch.nn import functional

from gemma4vec.errors import InputError
from gemma4vec.objective.nce import nce
from gemma4vec.recipe import schema
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.terms import LearnedTemperature
from gemma4vec.training.engine.checkpoint import latest_checkpoint, trained_weights
from gemma4vec.training.engine.optimizer import MasterAdamW
from gemma4vec.training.loop import train_stage
from gemma4vec.training.terms.temperature import Temperature, between

CPU = torch.device("cpu")
LEARN = {"learn_temperature": {"minimum": 0.02, "maximum": 0.5, "learning_rate": 0.3}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


def test_it_starts_where_the_recipe_says_and_never_leaves_its_bounds() -> None:
    bounds = LearnedTemperature(minimum=0.01, maximum=0.2)
    task = schema.Contrast(temperature=0.05, learn_temperature=bounds)
    found = Temperature(task, CPU).now()
    assert isinstance(found, torch.Tensor) and found.item() == pytest.approx(0.05, rel=1e-6)
    low, middle, high = (between(torch.tensor(u), bounds).item() for u in (-50.0, 0.0, 50.0))
    assert low == pytest.approx(0.01) and high == pytest.approx(0.2)
    assert middle == pytest.approx(math.sqrt(0.01 * 0.2))  # halfway by factors
    free = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: between(u, bounds), free)
    assert Temperature(schema.Contrast(temperature=0.07), CPU).now() == 0.07


def test_its_gradient_is_that_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    q, p = (functional.normalize(torch.randn(5, 4, generator=generator, dtype=torch.float64), dim=1) for _ in range(2))

    def loss(temperature: torch.Tensor) -> torch.Tensor:
        return nce(q, p, temperature=temperature, max_scores=7)

    assert torch.autograd.gradcheck(loss, torch.tensor(0.2, dtype=torch.float64, requires_grad=True))
    by_hand = functional.cross_entropy(q @ p.T / 0.2, torch.arange(5))
    assert loss(torch.tensor(0.2, dtype=torch.float64)).item() == pytest.approx(by_hand.item(), abs=1e-12)


def test_a_run_learns_logs_and_keeps_it_and_the_model_knows_nothing_of_it(base: Path, tmp_path: Path) -> None:
    constant = {"schedule": "constant"}
    stage = make_stage(base, tmp_path, task=LEARN, optimizer=constant)
    train_stage(stage, seed=0)
    logged = [event["temperature"] for event in stage.run.events("step")]
    assert logged[0] == pytest.approx(0.1, rel=1e-5) and len(set(logged)) == 4
    assert all(0.02 < value < 0.5 for value in logged)
    checkpoint = latest_checkpoint(stage.folder)
    assert checkpoint is not None
    assert set(trained_weights(checkpoint)) == set(stage.built.trainable())  # so a next stage and saving go on
    # A resumed run goes on with it.
    (stage.run.path / "events.jsonl").write_text("")
    again = make_stage(base, tmp_path, task=LEARN, optimizer=constant, run=stage.run, budget={"steps": 6})
    train_stage(again, seed=0)
    straight = make_stage(base, tmp_path / "straight", task=LEARN, optimizer=constant, budget={"steps": 6})
    train_stage(straight, seed=0)
    resumed = [event["temperature"] for event in again.run.events("step")]
    assert resumed == [event["temperature"] for event in straight.run.events("step")][4:]
    plain = make_stage(base, tmp_path / "plain")
    train_stage(plain, seed=0)
    assert "temperature" not in plain.run.events("step")[0]


def test_it_has_its_own_rate_and_no_decay(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path, task=LEARN, optimizer={"weight_decay": 0.5})
    optimizer = MasterAdamW(stage.built.trainable(), stage.settings.optimizer, stage.task.extra_parameters())
    *_, own = optimizer.adamw.param_groups
    assert own["weight_decay"] == 0.0 and len(own["params"]) == 1
    (parameter,) = own["params"]
    before = parameter.detach().clone()
    optimizer.step(0.005)  # half of the stage's rate; without a gradient nothing moves
    assert own["lr"] == pytest.approx(0.15) and torch.equal(parameter, before)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step(0.005)
    assert (before - parameter).item() == pytest.approx(0.15, rel=1e-3)  # Adam's first step is its rate


def test_terms_with_a_temperature_of_their_own_keep_it(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path, task={**LEARN, "terms": [{"kind": "nce", "temperature": 0.2}]})
    stage.task.loss(stage.built, next(stage.task.batches())).value.backward()
    (own,) = stage.task.extra_parameters().values()
    assert own.parameter.grad is None


def test_a_start_outside_of_the_bounds_is_refused() -> None:
    text = """
name: a
stages:
  - data: [{name: a, path: a.jsonl}]
    task: {temperature: 0.05, learn_temperature: {minimum: 0.06}}
    budget: {steps: 1}
"""
    with pytest.raises(InputError, match=r"learn_temperature: temperature 0\.05 is not between its bounds 0\.06 and"):
        parse_recipe(text, "my.yaml")
