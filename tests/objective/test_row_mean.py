"""The weighted mean of rows: its divisor, and rows without weight."""

import pytest
import torch

from gemma4vec.objective.row_mean import row_mean


def test_the_divisor_is_the_number_of_rows() -> None:
    values = torch.tensor([1.0, 2.0, 6.0])
    assert row_mean(values) == row_mean(values, torch.ones(3)) == pytest.approx(3.0)
    assert row_mean(values, torch.tensor([1.0, 0.0, 0.5])) == pytest.approx(4 / 3)
    assert row_mean(values, torch.tensor([2.0, 0.0, 1.0])) == pytest.approx(8 / 3)  # all doubled, so is the mean


def test_a_row_without_weight_has_no_gradient_even_if_it_is_not_finite() -> None:
    values = torch.tensor([1.0, float("nan"), float("inf")], requires_grad=True)
    mean = row_mean(values, torch.tensor([3, 0, 0]))
    mean.backward()
    assert mean == 1.0 and values.grad is not None and values.grad.tolist() == [1.0, 0.0, 0.0]
