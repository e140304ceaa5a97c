"""MasterAdamW is torch's AdamW at full precision, whatever the parameters' type; rates at every corner."""

import copy
import math

import pytest
import torch
from torch import nn

from gemma4vec.recipe.schema import Optimizer
from gemma4vec.training.engine.optimizer import MasterAdamW, learning_rate

SETTINGS = Optimizer(learning_rate=0.01, weight_decay=0.1, betas=(0.8, 0.95), clip=None)


def parameters(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (4, 3), "b": (5,), "unused": (2,)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for name, shape in shapes.items()}


def gradients(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {"a": torch.randn(4, 3, generator=generator), "b": torch.randn(5, generator=generator)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_equals_adamw_on_full_precision_copies_step_by_step(dtype: torch.dtype, clip: float | None) -> None:
    settings = SETTINGS.model_copy(update={"clip": clip})
    ours = parameters(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    reference = {name: nn.Parameter(p.detach().clone().to(wide)) for name, p in ours.items()}
    optimizer = MasterAdamW(ours, settings)
    adamw = torch.optim.AdamW(reference.values(), lr=1.0, betas=(0.8, 0.95), weight_decay=0.1)
    for step in range(12):
        for name, gradient in gradients(step).items():
            ours[name].grad = gradient.to(dtype)
            reference[name].grad = gradient.clone().to(dtype).to(wide)
        theirs = nn.utils.clip_grad_norm_(reference.values(), clip or math.inf)
        adamw.param_groups[0]["lr"] = 0.01 / (step + 1)
        adamw.step()
        assert optimizer.step(0.01 / (step + 1)) == pytest.approx(float(theirs), rel=1e-6)
        assert all(p.grad is None for p in ours.values())
        for name, master in optimizer.weights().items():
            assert master.dtype == wide
            torch.testing.assert_close(master, reference[name].detach(), rtol=0, atol=0)
            assert torch.equal(ours[name].detach(), reference[name].detach().to(dtype))


def test_updates_far_below_bf16_precision_add_up() -> None:
    settings = Optimizer(learning_rate=1e-5, weight_decay=0.0, clip=None)
    ours, plain = nn.Parameter(torch.ones(8, dtype=torch.bfloat16)), nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = MasterAdamW({"w": ours}, settings)
    adamw = torch.optim.AdamW([plain], lr=1e-5, weight_decay=0.0)
    for _ in range(1000):
        ours.grad, plain.grad = torch.ones_like(ours), torch.ones_like(plain)
        optimizer.step(1e-5)
        adamw.step()
    # Each step moves by 1e-5; the next bf16 number below 1 is 0.004 away, so plain bf16 loses every one of them.
    assert torch.equal(plain.detach(), torch.ones(8, dtype=torch.bfloat16))
    torch.testing.assert_close(optimizer.weights()["w"], torch.full((8,), 0.99), rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.detach().float(), torch.full((8,), 0.99), rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_and_state_go_on_where_they_stood(dtype: torch.dtype) -> None:
    def run(model: dict[str, nn.Parameter], optimizer: MasterAdamW, steps: range) -> None:
        for step in steps:
            for name, gradient in gradients(step).items():
                model[name].grad = gradient.to(dtype)
            optimizer.step(0.01)

    whole = parameters(dtype)
    straight = MasterAdamW(whole, SETTINGS)
    run(whole, straight, range(6))
    first = parameters(dtype)
    before = MasterAdamW(first, SETTINGS)
    run(first, before, range(3))
    second = {name: nn.Parameter(torch.zeros_like(p)) for name, p in first.items()}
    after = MasterAdamW(second, SETTINGS)
    after.load_weights(before.weights())
    after.load_state(before.state())
    assert all(torch.equal(second[name], first[name]) for name in first)
    run(second, after, range(3, 6))
    for name, value in straight.weights().items():
        assert torch.equal(after.weights()[name], value)
        assert torch.equal(second[name], whole[name])


def test_moments_of_a_gpus_optimizer_go_on_in_the_way_of_this_device() -> None:
    model = parameters(torch.bfloat16)
    elsewhere = MasterAdamW(model, SETTINGS)
    for group in elsewhere.adamw.param_groups:
        group["fused"] = True  # as on a GPU; a CPU knows it too
    for optimizer in (elsewhere, here := MasterAdamW(parameters(torch.bfloat16), SETTINGS)):
        for name, gradient in gradients(1).items():
            optimizer.parameters[name].grad = gradient.bfloat16()
        optimizer.step(0.01)
    here.load_state(copy.deepcopy(elsewhere.state()))
    assert [group["fused"] for group in here.adamw.param_groups] == [None]
    for optimizer in (elsewhere, here):
        for name, gradient in gradients(2).items():
            optimizer.parameters[name].grad = gradient.bfloat16()
        optimizer.step(0.01)
    for name, value in elsewhere.weights().items():
        torch.testing.assert_close(here.weights()[name], value, rtol=0, atol=1e-6)


def test_weights_are_copies() -> None:
    model = parameters(torch.float32)
    optimizer = MasterAdamW(model, SETTINGS)
    kept = optimizer.weights()["b"]
    model["b"].grad = torch.ones(5)
    optimizer.step(0.1)
    assert not torch.equal(kept, model["b"])


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    model = parameters(torch.bfloat16)
    optimizer = MasterAdamW(model, SETTINGS.model_copy(update={"clip": 1.0}))
    before = optimizer.weights()
    model["a"].grad = torch.full((4, 3), math.nan, dtype=torch.bfloat16)
    model["b"].grad = torch.ones(5, dtype=torch.bfloat16)
    assert math.isnan(optimizer.step(0.01))
    assert all(torch.equal(value, before[name]) for name, value in optimizer.weights().items())
    assert all(torch.isfinite(p).all() for p in model.values())


RATES = Optimizer(learning_rate=1.0, warmup_steps=4)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_is_linear_and_ends_at_the_peak(schedule: str) -> None:
    settings = RATES.model_copy(update={"schedule": schedule})
    rates = [learning_rate(settings, step, 24) for step in range(24)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and rates[4] == 1.0
    assert max(rates) == 1.0 and min(rates) > 0.0
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_decay_has_its_known_values() -> None:
    linear, cosine = (RATES.model_copy(update={"schedule": name}) for name in ("linear", "cosine"))
    assert learning_rate(linear, 14, 24) == pytest.approx(0.5) and learning_rate(cosine, 14, 24) == pytest.approx(0.5)
    assert learning_rate(linear, 9, 24) == pytest.approx(0.75)
    assert learning_rate(cosine, 9, 24) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    # The last step is one before the end, where the rate would be zero.
    assert learning_rate(linear, 23, 24) == pytest.approx(0.05) and learning_rate(linear, 24, 24) == 0.0
    assert learning_rate(cosine, 30, 24) == pytest.approx(0.0)
    assert learning_rate(RATES.model_copy(update={"schedule": "constant"}), 23, 24) == 1.0


def test_without_warm_up_and_with_a_total_inside_it() -> None:
    assert learning_rate(RATES.model_copy(update={"warmup_steps": 0}), 0, 10) == 1.0
    assert [learning_rate(RATES, step, 2) for step in range(2)] == [0.25, 0.5]
    assert learning_rate(RATES, 4, 4) == 1.0


def test_an_unknown_total_gives_the_same_rates_as_a_known_one() -> None:
    # A budget in minutes is unknown for its first 8 steps; a resumed run knows it from the start.
    fresh = [learning_rate(RATES, step, None if step < 8 else 40, 8) for step in range(40)]
    resumed = [learning_rate(RATES, step, 40, 8) for step in range(40)]
    assert fresh == resumed and fresh[7] == fresh[8] == 1.0 and fresh[9] < 1.0


def test_a_readout_may_have_a_rate_of_its_own_on_the_same_schedule() -> None:
    settings = SETTINGS.model_copy(update={"readout_learning_rate": 0.05})
    start = parameters(torch.float32)
    ours = {"readout.a": start["a"], "backbone.b": start["b"]}
    reference = {name: nn.Parameter(p.detach().clone()) for name, p in ours.items()}
    optimizer = MasterAdamW(ours, settings)
    groups = [{"params": [reference["backbone.b"]]}, {"params": [reference["readout.a"]]}]
    adamw = torch.optim.AdamW(groups, lr=1.0, betas=(0.8, 0.95), weight_decay=0.1)
    for step in range(5):
        for name, gradient in gradients(step).items():
            for group in (ours, reference):
                next(p for key, p in group.items() if key.endswith(name)).grad = gradient.clone()
        rate = 0.01 / (step + 1)
        adamw.param_groups[0]["lr"], adamw.param_groups[1]["lr"] = rate, 5 * rate
        adamw.step()
        optimizer.step(rate)
    for name, value in reference.items():
        torch.testing.assert_close(ours[name].detach(), value.detach(), rtol=1e-6, atol=0)
    # A model without parameters in its readout has nothing to set apart.
    assert len(MasterAdamW({"backbone.b": start["b"]}, settings).adamw.param_groups) == 1
    assert len(MasterAdamW({"readout.a": start["a"]}, settings).adamw.param_groups) == 1
