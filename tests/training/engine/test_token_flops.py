"""Arithmetic of a training, against counting by hand and torch's own counter."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gemma4vec.training.engine.flops import flops_per_token


class Net(nn.Module):
    """An embedding and three matrices; `x` is looked up, so no gradient flows below the first trained matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.first = nn.Linear(8, 16, bias=False)
        self.second = nn.Linear(16, 4)
        self.third = nn.Linear(4, 6, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(self.table(ids)).relu()))


def counted(net: nn.Module, tokens: int) -> int:
    """What torch counts for a forward and a backward pass."""
    counter = FlopCounterMode(display=False)
    with counter:
        net(torch.arange(tokens)).sum().backward()
    return int(counter.get_total_flops())


def test_only_what_is_trained_and_above_has_a_backward() -> None:
    net = Net()
    for parameter in (*net.table.parameters(), *net.first.parameters(), *net.second.parameters()):
        parameter.requires_grad = False
    assert flops_per_token(net) == 2 * (8 * 16 + 16 * 4) + 6 * (4 * 6)
    # torch knows that the lowest trained matrix passes no gradient on.
    assert counted(net, 10) == 10 * (flops_per_token(net) - 2 * 4 * 6)


def test_all_trained() -> None:
    net = Net()
    assert flops_per_token(net) == 6 * (8 * 16 + 16 * 4 + 4 * 6)
    assert counted(net, 10) == 10 * flops_per_token(net)  # the gradient goes on to the table


def test_recomputing_is_one_more_forward() -> None:
    net = Net()
    assert flops_per_token(net, recomputed=True) - flops_per_token(net) == 2 * (8 * 16 + 16 * 4 + 4 * 6)
