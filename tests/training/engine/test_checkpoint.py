"""Checkpoints are whole or not there, hold everything, and say in one line when they cannot be used."""

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gemma4vec.errors import InputError, WorkError
from gemma4vec.recipe.schema import Optimizer
from gemma4vec.training.engine.checked_weights import pack_weights, read_weights, write_weights
from gemma4vec.training.engine.checkpoint import (
    Progress,
    latest_checkpoint,
    load_checkpoint,
    read_progress,
    save_checkpoint,
    trained_weights,
)
from gemma4vec.training.engine.optimizer import MasterAdamW


def optimizer(seed: int = 0, size: int = 8, dtype: torch.dtype = torch.bfloat16, name: str = "w") -> MasterAdamW:
    weight = nn.Parameter(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).to(dtype))
    made = MasterAdamW({name: weight}, Optimizer())
    weight.grad = torch.randn(size, size, generator=torch.Generator().manual_seed(seed + 1)).to(dtype)
    made.step(0.01)
    return made


def test_everything_comes_back(tmp_path: Path) -> None:
    before = optimizer()
    progress = Progress(stage=1, step=12, batch=24, rows=768, tokens=9000, seconds=1.5, best_score=0.25, best_step=10)
    torch.manual_seed(5)
    torch.rand(3)
    folder = save_checkpoint(tmp_path, progress, before)
    drawn = torch.rand(4)
    after = optimizer(seed=9)
    torch.manual_seed(0)
    load_checkpoint(folder, after)
    assert read_progress(folder) == progress
    assert torch.equal(torch.rand(4), drawn)
    assert torch.equal(after.weights()["w"], before.weights()["w"])
    assert torch.equal(after.parameters["w"], before.parameters["w"])
    assert trained_weights(folder)["w"].dtype == torch.float32
    for key in ("step", "exp_avg", "exp_avg_sq"):
        assert torch.equal(after.state()["state"][0][key], before.state()["state"][0][key])


def test_a_checkpoint_of_gpus_goes_on_where_there_are_fewer_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = optimizer()
    states = [torch.full((16,), number, dtype=torch.uint8) for number in range(3)]
    with monkeypatch.context() as on_a_gpu:
        on_a_gpu.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        random = [{"random": torch.get_rng_state(), "cuda": states}]
        folder = save_checkpoint(tmp_path, Progress(step=1), before, random=random)
    assert b"cuda:0" in (folder / "optimiser.pt").read_bytes()
    after = optimizer(seed=9)
    load_checkpoint(folder, after)
    assert torch.equal(after.state()["state"][0]["exp_avg"], before.state()["state"][0]["exp_avg"])
    restored: dict[int, int] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.update({device: int(state[0])}))
    load_checkpoint(folder, optimizer(seed=9))
    assert restored == {0: 0, 1: 1}


def test_only_the_latest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, Progress(step=step), optimizer())
        if step == 2:
            save_checkpoint(tmp_path, Progress(step=step), optimizer(), keep_as="best")
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000010", "best"}
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000010"
    assert read_progress(tmp_path / "best").step == 2


def test_the_latest_of_several_counts_and_leftovers_do_not(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nothing") is None
    for name in ("step-00000009", "step-00000100", "best", ".step-00000200.x.part", "step-00000300.part", "step-7"):
        (tmp_path / name).mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000100"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing past `size` fails in the kernel, as on a full disk, whoever writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


# The weights take 16 KiB and the optimizer 34 KiB, so these limits hit the one, the other, and the first byte.
@pytest.mark.parametrize("size", [0, 8_000, 20_000])
def test_a_full_disk_is_one_line_and_keeps_the_old_checkpoint(tmp_path: Path, size: int) -> None:
    old = save_checkpoint(tmp_path, Progress(step=1), optimizer(size=64))
    with largest_file(size), pytest.raises(WorkError, match=r"could not write .*step-00000002.*free space") as caught:
        save_checkpoint(tmp_path, Progress(step=2), optimizer(size=64))
    assert "\n" not in str(caught.value)
    assert latest_checkpoint(tmp_path) == old and read_progress(old).step == 1
    assert os.listdir(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("file", ["progress.json", "trained.safetensors", "optimiser.pt"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, file: str, damage: str) -> None:
    folder = save_checkpoint(tmp_path, Progress(step=3), optimizer())
    path = folder / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff" * len(content)}[damage])
    with pytest.raises(InputError, match=r"step-00000003 is damaged .*delete it") as caught:
        read_progress(folder)
        load_checkpoint(folder, optimizer(seed=3))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("file", ["progress.json", "trained.safetensors", "optimiser.pt"])
def test_a_single_wrong_digit_is_damage(tmp_path: Path, file: str) -> None:
    """A bit that flips in a weight is read without a fault by every library."""
    folder = save_checkpoint(tmp_path, Progress(step=3), optimizer())
    path = folder / file
    content = bytearray(path.read_bytes())
    if file == "progress.json":
        content = bytearray(content.replace(b'"step": 3', b'"step": 4'))
    else:
        values = optimizer().state()["state"][0]["exp_avg"] if file == "optimiser.pt" else optimizer().weights()["w"]
        content[content.index(values.numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"step-00000003 is damaged \({file} differs from .* written\); delete it"):
        read_progress(folder)
        load_checkpoint(folder, optimizer(seed=3))


def test_a_checkpoint_of_an_earlier_release_has_no_checksums(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, Progress(step=3), optimizer())
    (folder / "checksums.json").unlink()
    save_file(optimizer().weights(), folder / "trained.safetensors")
    load_checkpoint(folder, optimizer(seed=3))
    assert read_progress(folder).step == 3


def test_weights_of_every_dtype_and_shape_are_checked(tmp_path: Path) -> None:
    weights = {"a": torch.tensor(2.0), "b": torch.ones(2, 3, dtype=torch.bfloat16).t(), "c": torch.zeros(0)}
    weights = {name: value.contiguous() for name, value in weights.items()}
    file = tmp_path / "w.safetensors"
    file.write_bytes(pack_weights(weights))
    assert all(torch.equal(value, weights[name]) for name, value in read_weights(file).items())
    write_weights(tmp_path / "other.safetensors", weights)
    assert (tmp_path / "other.safetensors").read_bytes() == file.read_bytes()
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="differs from what was written"):
        read_weights(file)


def test_progress_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, Progress(step=3), optimizer())
    (folder / "progress.json").write_text(json.dumps({"stage": 0, "steps": 3}))
    with pytest.raises(InputError, match="is damaged"):
        read_progress(folder)


@pytest.mark.parametrize("other", [{"name": "v"}, {"size": 4}])
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, other: dict) -> None:
    folder = save_checkpoint(tmp_path, Progress(step=3), optimizer())
    with pytest.raises(InputError, match="belongs to another model; start a new run"):
        load_checkpoint(folder, optimizer(**other))
