"""GradCache is the plain path: loss and every gradient, with all that may stand beside it, in less memory."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from float64_norms import use_float64_norms
from tiny_model import write_tiny
from tiny_run import make_stage
from torch import Tensor
from traced import trace_only

from gemma4vec.errors import InputError
from gemma4vec.model.backbone.compilation import choose_compile
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.training.batches.fit_memory import kept_bytes
from gemma4vec.training.batches.grad_cache import encode_cached
from gemma4vec.training.loop import train_stage
from gemma4vec.training.prepare_model import compile_for_training
from gemma4vec.training.stage import Stage
from gemma4vec.training.tasks.contrastive import ContrastTask

TERMS = [
    {"kind": "nce", "matryoshka": [16, 8], "query_query": True, "symmetric": True},
    {"kind": "gor", "matryoshka": [16, 4], "weight": 0.5},
    {"kind": "self_contrast", "weight": 0.3},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


def one_batch(
    base: Path, out: Path, cached: bool, *, compiled: bool = False, dropout: float = 0.3, **parts: Any
) -> tuple[float, dict[str, Tensor], Tensor]:
    """Loss and gradients of a stage's first batch in float64 (compiled: fp32), and what is drawn after it."""
    parts["layout"] = {"tokens_per_forward": 64, "grad_cache": cached} | parts.get("layout", {})
    dtype = torch.float32 if compiled else torch.float64
    stage = make_stage(base, out, dtype=dtype, lora={"dropout": dropout}, **parts)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in stage.built.trainable().items():
            if "lora_B" in name:  # zero at first, which would leave half of the gradients zero
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    stage.built.encoder.train()
    if stage.settings.layout.gradient_checkpointing:
        stage.built.encoder.backbone.use_gradient_checkpointing()
    if compiled:
        stage.built.encoder.backbone.compile_layers()
    torch.manual_seed(7)
    batch = next(stage.task.batches())
    assert len(batch.layouts) > 3
    loss = stage.task.loss(stage.built, batch)
    loss.value.backward()
    found = {name: p.grad.clone() for name, p in stage.built.trainable().items() if p.grad is not None}
    assert set(found) == set(stage.built.trainable())
    return loss.value.item(), found, torch.rand(3)


def test_triplets_are_those_of_the_plain_path(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_float64_norms(monkeypatch)
    task = {"hard_negatives": 2, "terms": [{"kind": "triplet", "margin": 0.5, "matryoshka": [16, 8]}]}
    found = [one_batch(base, tmp_path, cached, negatives=2, task=task) for cached in (False, True)]
    (plain, plain_gradients, _), (cached, gradients, _) = found
    assert cached == pytest.approx(plain, abs=1e-12) and plain > 0
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 1e-9, name
        torch.testing.assert_close(gradient, plain_gradients[name], rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("layout", [{}, {"gradient_checkpointing": True}, {"kind": "padded", "grouping": "separate"}])
def test_loss_gradients_and_later_draws_are_those_of_the_plain_path(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, Any]
) -> None:
    use_float64_norms(monkeypatch)
    found = [one_batch(base, tmp_path, cached, task={"terms": TERMS}, layout=layout) for cached in (False, True)]
    (plain, plain_gradients, plain_draws), (cached, gradients, draws) = found
    assert cached == pytest.approx(plain, abs=1e-12)
    assert torch.equal(plain_draws, draws)
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 1e-9, name
        torch.testing.assert_close(gradient, plain_gradients[name], rtol=0, atol=1e-9, msg=name)


@pytest.mark.skipif(not choose_compile("auto", steps=None, minutes=None).on, reason="no compiler")
@pytest.mark.slow
@pytest.mark.parametrize("way", ["traced", "compiled"])
def test_compiled_layers_have_the_loss_and_gradients_of_plain_ones(
    base: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "traced":
        trace_only(monkeypatch)
    plain, plain_gradients, _ = one_batch(base, tmp_path, False, dropout=0.0)
    cached, gradients, _ = one_batch(base, tmp_path, True, compiled=True, dropout=0.0)
    assert cached == pytest.approx(plain, rel=1e-5)
    for name, gradient in gradients.items():
        wanted = plain_gradients[name].float()
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-4 * wanted.abs().max().item(), msg=name)


@pytest.mark.slow
@pytest.mark.skipif(not choose_compile("auto", steps=None, minutes=None).on, reason="no compiler")
def test_compiled_layers_reproduce_dropout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against compiled layers without GradCache under the same seed: they draw other values than uncompiled ones."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    base = write_tiny(tmp_path / "base", "gemma3", layers=1)
    stage = make_stage(base, tmp_path, lora={"dropout": 0.3}, layout={"tokens_per_forward": 64}, task={"terms": TERMS})
    parameters = stage.built.trainable()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    stage.built.encoder.train()
    compile_for_training(stage.built.encoder.backbone)
    assert isinstance(stage.task, ContrastTask)
    task, batch = stage.task, next(stage.task.batches())
    assert len(batch.layouts) > 3

    def run(cached: bool, seed: int) -> tuple[float, dict[str, Tensor], Tensor]:
        torch.manual_seed(seed)
        loss = task.loss(stage.built, replace(batch, grad_cache=cached))
        loss.value.backward()
        found = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
        for parameter in parameters.values():
            parameter.grad = None
        return loss.value.item(), found, torch.rand(3)

    plain, plain_gradients, plain_draws = run(False, 7)
    cached, gradients, draws = run(True, 7)
    other, _, _ = run(True, 8)
    assert cached == pytest.approx(plain, rel=1e-6) and abs(other - plain) > 1e-3
    assert torch.equal(plain_draws, draws) and set(gradients) == set(parameters)
    for name, gradient in gradients.items():
        wanted = plain_gradients[name]
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item(), msg=name)


def test_dropout_is_reproduced_and_not_left_out(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path, lora={"dropout": 0.5}, layout={"tokens_per_forward": 64})
    with torch.no_grad():
        for name, parameter in stage.built.trainable().items():
            if "lora_B" in name:
                parameter.fill_(0.1)
    stage.built.encoder.train()
    layouts = next(stage.task.batches()).layouts
    torch.manual_seed(0)
    first = encode_cached(stage.built.encoder, layouts)
    second = encode_cached(stage.built.encoder, layouts)
    torch.manual_seed(0)
    plain = stage.built.encoder(layouts)
    assert torch.equal(first, plain) and (second - plain).abs().max() > 1e-4


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_whole_stage_has_the_losses_of_the_plain_one(base: Path, tmp_path: Path, accumulate: int) -> None:
    def losses(cached: bool) -> list[float]:
        stage = make_stage(
            base,
            tmp_path,
            lora={"dropout": 0.3},
            layout={"tokens_per_forward": 64, "grad_cache": cached},
            batch={"accumulate": accumulate},
        )
        train_stage(stage, seed=0)
        return [event["loss"] for event in stage.run.events("step")]

    assert losses(True) == pytest.approx(losses(False), abs=1e-5)


def stage_of(base: Path, out: Path, rows: int, **layout: Any) -> Stage:
    return make_stage(base, out, batch={"rows": rows}, layout={"tokens_per_forward": 64, **layout})


def test_what_is_kept_does_not_grow_with_the_batch(base: Path, tmp_path: Path) -> None:
    def kept(rows: int, cached: bool) -> int:
        stage = stage_of(base, tmp_path, rows, grad_cache=cached)
        sizes: dict[int, int] = {}
        alive = []

        def keep(tensor: Tensor) -> Tensor:
            alive.append(tensor)
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        parameters = {p.untyped_storage().data_ptr() for p in stage.built.encoder.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            stage.task.loss(stage.built, next(stage.task.batches()))
        return sum(size for address, size in sizes.items() if address not in parameters)

    dimension = stage_of(base, tmp_path, 8).built.encoder.dimension
    vectors = 2 * 24 * dimension * 4
    assert kept(24, True) - kept(8, True) < 8 * vectors  # copies of the vectors, and scores of this tiny batch
    assert kept(24, False) - kept(8, False) > 30 * vectors


def test_counting_what_is_kept_keeps_nothing(base: Path, tmp_path: Path) -> None:
    stage = stage_of(base, tmp_path, 8)
    encoder, layouts = stage.built.encoder, next(stage.task.batches()).layouts
    outputs: list[weakref.ref[Tensor]] = []
    watched = [module for module in encoder.modules() if not any(module.children())]

    def watch(_: Any, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(weakref.ref(output))

    hooks = [module.register_forward_hook(watch) for module in watched]
    kept_bytes(encoder, layouts[0])
    for hook in hooks:
        hook.remove()
    gc.collect()
    assert len(outputs) > 20 and not any(output() is not None for output in outputs)


def test_counting_what_is_kept_draws_nothing(base: Path, tmp_path: Path) -> None:
    stage = stage_of(base, tmp_path, 16)
    torch.manual_seed(3)
    kept, drawn = kept_bytes(stage.built.encoder, next(stage.task.batches()).layouts[0]), torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(2)) and kept > 0


def test_it_is_refused_where_there_is_no_softmax_over_rows() -> None:
    text = """
name: a
stages:
  - data: [{name: a, source: text, path: a.txt}]
    task: {kind: masked_next_token}
    budget: {steps: 1}
"""
    parse_recipe(text, "my.yaml")
    with pytest.raises(InputError, match=r"layout\.grad_cache=true is for contrast.*batch\.accumulate"):
        parse_recipe(text, "my.yaml", ["stages.0.layout.grad_cache=true"])
