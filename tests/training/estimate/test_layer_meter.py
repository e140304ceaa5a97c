"""The meter changes nothing, and what it counts is what a whole model keeps."""

from pathlib import Path

import pytest
import torch
from tiny_model import write_tiny
from tiny_run import make_stage
from torch.utils.flop_counter import FlopCounterMode

from gemma4vec.model.backbone.compilation import CompileChoice
from gemma4vec.model.backbone.meta_model import layer_kinds
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.training.engine.flops import layout_flops
from gemma4vec.training.engine.optimizer import MasterAdamW
from gemma4vec.training.engine.parameter_count import count_parameters
from gemma4vec.training.estimate.data import cells_of, read_batches
from gemma4vec.training.estimate.layer_meter import LayerMeter
from gemma4vec.training.estimate.layers import LayerCosts, measure_layers, total_cost
from gemma4vec.training.stage import Stage


def stage_of(folder: Path, architecture: str, layers: int, last: int | None = None) -> Stage:
    base = write_tiny(folder / f"{architecture}-{layers}", architecture, layers=layers)
    return make_stage(base, folder, lora={"last_layers": last})


def gradients(stage: Stage, meter: LayerMeter | None) -> dict[str, torch.Tensor]:
    batch = next(iter(stage.task.batches(0)))
    if meter is None:
        stage.task.loss(stage.built, batch).value.backward()
    else:
        with meter.attached():
            stage.task.loss(stage.built, batch).value.backward()
    found = {name: p.grad.clone() for name, p in stage.built.trainable().items() if p.grad is not None}
    for parameter in stage.built.trainable().values():
        parameter.grad = None
    return found


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("architecture", ["gemma3", "llama"])
def test_it_changes_no_gradient_and_sees_every_layer(tmp_path: Path, architecture: str, checkpointing: bool) -> None:
    stage = stage_of(tmp_path, architecture, 3, last=2)
    stage.built.encoder.train()
    if checkpointing:
        stage.built.encoder.backbone.use_gradient_checkpointing()
    plain = gradients(stage, None)
    meter = LayerMeter(stage.built.encoder.backbone, [False, True, True])
    watched = gradients(stage, meter)
    assert plain.keys() == watched.keys() and plain
    for name, value in plain.items():
        assert torch.equal(watched[name], value), name
    assert {layer for layer, _ in meter.seconds} == {0, 1, 2}
    again = gradients(stage, None)  # and it is gone afterwards
    assert all(torch.equal(again[name], value) for name, value in plain.items())


def kept_in_all(stage: Stage) -> int:
    """Bytes kept for the backward pass, counted without the meter."""
    parameters = {p.untyped_storage().data_ptr() for p in stage.built.encoder.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = stage.task.loss(stage.built, next(iter(stage.task.batches(0)))).value
    assert loss.requires_grad
    return sum(storage.nbytes() for address, storage in found.items() if address not in parameters)


def measured(built: EmbeddingModel, stage: Stage, first_trained: int) -> LayerCosts:
    kinds = layer_kinds(built.encoder.backbone.config, first_trained)
    optimizer = MasterAdamW(built.trainable(), stage.settings.optimizer)
    return measure_layers(built, stage.task, optimizer, kinds, compile=CompileChoice(False, ""), checkpointing=False)


@pytest.mark.parametrize(("architecture", "last"), [("gemma3", None), ("gemma3", 3), ("llama", None), ("llama", 3)])
def test_few_layers_tell_what_many_keep(tmp_path: Path, architecture: str, last: int | None) -> None:
    # Two of each kind: sliding and full, and with `last` also frozen and trained.
    few = stage_of(tmp_path, architecture, 4, last=2 if last else None)
    many = stage_of(tmp_path, architecture, 6, last=last)
    first = 6 - last if last else 0
    found = measured(few.built, few, 2 if last else 0)
    cells = cells_of(next(iter(many.task.batches(0))).layouts)
    kinds = layer_kinds(many.built.encoder.backbone.config, first)
    many.built.encoder.train()
    assert total_cost(found.kept_bytes, kinds, cells) == pytest.approx(kept_in_all(many), rel=0.03)


def test_a_reading_is_what_the_batches_hold(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, "llama", 2)
    reading = read_batches(stage.task, batches=3)
    drawn = []
    for batch in stage.task.batches(0):
        drawn.append(batch.layouts)
        if len(drawn) == 3:
            break
    tokens = [sum(layout.real_tokens for layout in layouts) for layouts in drawn]
    cells = [sum(layout.all_tokens for layout in layouts) for layouts in drawn]
    assert reading.batches == 3 and reading.tokens == sum(tokens) / 3
    assert reading.all_cells == pytest.approx(sum(cells) / 3)
    assert sum(reading.largest_cells.values()) == max(cells)
    assert reading.padding_share == pytest.approx(1 - sum(tokens) / sum(cells))


def test_flops_are_those_that_torch_counts(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, "llama", 3, last=2)
    built = stage.built
    backbone = built.encoder.backbone
    backbone.train()
    layout = next(iter(stage.task.batches(0))).layouts[0]
    with FlopCounterMode(display=False) as counter:
        states = backbone(layout)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        states.sum().backward()
    backward = counter.get_total_flops()
    found = layout_flops(backbone, layout.all_tokens, 0.0, count_parameters(built).first_trained)
    # torch's counter leaves out the attention of CPUs, so none is counted here (0 columns).
    assert (found.forward, found.backward) == (forward, backward)
