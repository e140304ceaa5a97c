"""Before speeds are compared, losses are: rounding goes to both sides, another mathematics to one."""

from itertools import cycle, islice
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gemma4vec.errors import WorkError

BF16, FP32 = torch.bfloat16, torch.float32


def compare(dtype: torch.dtype, off: list[float], *, twice: bool = False) -> dict[str, Any]:
    """Batches whose losses differ by the numbers in `off`, over and over; `twice`: each has a text twice."""
    from benchmarks.speed.training_speed import compare_losses

    keys = torch.zeros(2, dtype=torch.long) if twice else torch.arange(2)
    hashes = SimpleNamespace(queries_N=10 + keys, positives_N=keys, negatives_NK=20 + keys[:, None])
    batches = [SimpleNamespace(hashes=hashes, number=number) for number in range(100)]
    ours = SimpleNamespace(
        dtype=dtype,
        first_batches=lambda: iter(batches),
        loss_of=lambda batch: 2.0 + batch.number,
    )
    theirs = [2.0 + number + difference for number, difference in enumerate(islice(cycle(off), 100))]
    return compare_losses(ours, SimpleNamespace(loss_of=theirs.__getitem__), temperature=0.05)  # type: ignore[arg-type]


def test_one_batch_that_agrees_is_enough() -> None:
    assert compare(FP32, [1e-4])["batches"] == [0]
    found = compare(BF16, [0.07, 9.0])
    assert found["batches"] == [0] and found["allowed_difference"] == 2**-8 / 0.05


def test_rounding_that_goes_to_both_sides_is_told_from_another_loss() -> None:
    found = compare(BF16, [0.3, -0.2])
    assert found["batches"] == [0, 1] and found["theirs"] - found["ours"] == pytest.approx(0.05)
    with pytest.raises(WorkError, match=r"loss of 8 batches: ours 5\.5000, theirs 5\.7500.*must not be compared"):
        compare(BF16, [0.3, 0.2])


def test_without_rounding_the_first_batch_decides() -> None:
    with pytest.raises(WorkError, match="loss of 1 batches"):
        compare(FP32, [0.001, -0.001])
    with pytest.raises(WorkError, match="loss of 1 batches"):
        compare(FP32, [float("nan")])


def test_batches_with_a_text_twice_decide_nothing() -> None:
    with pytest.raises(WorkError, match="each of the first 64 batches has a text twice"):
        compare(BF16, [0.0], twice=True)
