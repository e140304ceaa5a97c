"""The mean of models and the geometry of their changes, against plain arrays."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.pipeline.soup import tensors
from gemma4vec.pipeline.soup.mean import Deltas, check_weights, equal_weights, mean_blocks, measure_deltas
from gemma4vec.pipeline.soup.tensors import Key, TensorFolder


def model(folder: Path, number: int, **more: Tensor) -> tuple[TensorFolder, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(number)
    values = {
        "a": torch.randn(9, 4, generator=generator),
        "b": torch.randn(5, generator=generator),
        "scale": torch.randn((), generator=generator),
        "frozen": torch.full((3, 3), 0.1),
        "ids": torch.arange(4),
    } | more
    place = folder / str(number)
    place.mkdir()
    save_file(values, place / "model.safetensors")
    return TensorFolder(place), values


def mean_of(models: list[TensorFolder], weights: list[float], name: str) -> Tensor:
    blocks = list(mean_blocks(models, weights, Key("model", name)))
    return torch.cat(blocks) if blocks[0].ndim else blocks[0]


@pytest.mark.parametrize("weights", [equal_weights(3), [0.5, 0.3, 0.2], [0.9, 0.0, 0.1]])
def test_the_mean_is_that_of_plain_tensors(
    tmp_path: Path, weights: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "BLOCK_VALUES", 8)
    made = [model(tmp_path, number) for number in range(3)]
    for name in ("a", "b", "scale"):
        whole = sum(weight * values[name].double() for weight, (_, values) in zip(weights, made, strict=True))
        found = mean_of([one for one, _ in made], weights, name)
        # Rounded once: at most half a unit in the last place of fp32 away.
        assert found.dtype == torch.float32 and torch.allclose(
            found.double(), torch.as_tensor(whole), rtol=1.0001 * 2**-24, atol=0
        )


def test_what_is_equal_in_all_stays_as_it_is(tmp_path: Path) -> None:
    made = [model(tmp_path, number)[0] for number in range(3)]
    assert torch.equal(mean_of(made, equal_weights(3), "frozen"), torch.full((3, 3), 0.1))
    assert torch.equal(mean_of(made, equal_weights(3), "ids"), torch.arange(4))
    other = model(tmp_path, 4, ids=torch.zeros(4, dtype=torch.int64))[0]
    with pytest.raises(InputError, match="ids is no weight and differs between the ingredients"):
        mean_of([made[0], other], [0.5, 0.5], "ids")


def test_16_bit_weights_are_averaged_in_full_precision(tmp_path: Path) -> None:
    low, high = torch.tensor([1.0]).bfloat16(), torch.tensor([1.0078125]).bfloat16()  # neighbors in bf16
    made = [model(tmp_path, number, b=value)[0] for number, value in enumerate([low, high])]
    assert mean_of(made, [0.5, 0.5], "b").tolist() == [1.00390625]


def test_changes_are_those_of_flat_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "BLOCK_VALUES", 6)
    start, origin = model(tmp_path, 9)
    made = [model(tmp_path, number) for number in range(3)]
    found = measure_deltas([one for one, _ in made], ["x", "y", "z"], start)
    assert found is not None and found.left_out == 0
    names = ["a", "b", "scale", "frozen"]
    flat = np.stack([np.concatenate([(v[n] - origin[n]).double().numpy().ravel() for n in names]) for _, v in made])
    norms = np.linalg.norm(flat, axis=1)
    assert np.allclose(found.norms, norms) and np.allclose(found.cosines, flat @ flat.T / np.outer(norms, norms))
    weights = [0.5, 0.3, 0.2]
    norm = float(np.linalg.norm(np.array(weights) @ flat))
    assert found.norm_of(weights) == pytest.approx(norm, rel=1e-6)
    assert found.shrinkage(weights) == pytest.approx(norm / norms.mean(), rel=1e-6)
    assert found.shrinkage([0.5, 0.5, 0.0], 1.0) == pytest.approx(1 / norms[:2].mean())


def test_orthogonal_changes_shrink_and_equal_ones_do_not() -> None:
    assert Deltas(np.eye(4), 0).shrinkage(equal_weights(4)) == pytest.approx(1 / 2)
    assert Deltas(np.ones((3, 3)), 0).shrinkage(equal_weights(3)) == pytest.approx(1)
    still = Deltas(np.diag([4.0, 0.0]), 0)
    assert still.cosines == [[1.0, None], [None, None]]
    assert still.shrinkage([0.5, 0.5]) == pytest.approx(1 / 2)  # the start itself is not in the mean norm
    assert Deltas(np.zeros((2, 2)), 0).shrinkage([0.5, 0.5]) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("known", [True, False])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, bad: float, known: bool) -> None:
    start = model(tmp_path, 9)[0] if known else None
    made = [model(tmp_path, 0)[0], model(tmp_path, 1, b=torch.tensor([0, 1, bad, 2, 3]))[0]]
    with pytest.raises(InputError, match=r"^two: b holds weights that are NaN or infinite"):
        measure_deltas(made, ["one", "two"], start)
    assert measure_deltas(made[:1], ["one"], None) is None


def test_weights_must_be_a_mean() -> None:
    assert sum(check_weights([0.3333333, 0.3333333, 0.3333334], ["a", "b", "c"])) == 1
    for weights, message in [
        ([0.5, 0.6], r"sum to 1.1; they must sum to 1"),
        ([1.5, -0.5], r"b has -0.5; give a number above 0"),
        ([1.0, 0.0], "b has 0; give a number above 0"),
        ([math.nan, 1.0], "a has nan"),
        ([1.0], r"has 1 numbers for 2 ingredients"),
    ]:
        with pytest.raises(InputError, match=message):
            check_weights(weights, ["a", "b"])
