"""The start-up probe: does attention reach where it should, and nowhere else?

A "bidirectional" model that is silently causal trains, runs and scores badly without one error message; a packed row
whose documents see each other is as quiet. So three facts are measured on the loaded model, not read off its config:

1. a later token of the same document moves an earlier state (bidirectional) or does not (causal);
2. an earlier token moves a later state;
3. a neighbour in the same packed row moves nothing, neither the one before nor the one behind.
"""

from dataclasses import dataclass

import torch

from gemma4vec.errors import WorkError
from gemma4vec.model.backbone import Backbone
from gemma4vec.model.packing import Layout, Tokens, lay_out

# Relative changes. In one and the same shape an unseen token changes nothing at all, so the first bound only leaves
# room for kernels that sum in another order; a seen one moves states by percents, even in bf16.
_UNMOVED = 1e-3
_MOVED = 2e-3
_LENGTH = 12


@dataclass(frozen=True)
class Probe:
    """Relative changes of states, each the largest change over the root mean square of the states."""

    future_to_past: float
    past_to_future: float
    neighbour: float


def measure(backbone: Backbone, height: int = 1, columns: int = 2 * _LENGTH) -> Probe:
    """Measure on a layout of `height` rows and `columns` columns (give the training shape for compiled layers)."""
    vocabulary = int(backbone.config.vocab_size)
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(min(10, vocabulary // 2), vocabulary, (2, _LENGTH), generator=generator)
    other = torch.randint(min(10, vocabulary // 2), vocabulary, (_LENGTH,), generator=generator)

    def states(document: torch.Tensor, neighbour: torch.Tensor) -> torch.Tensor:
        documents = [Tokens(document.tolist()), Tokens(neighbour.tolist())]
        layout: Layout = lay_out(documents, [[0, 1]], max(columns, 2 * _LENGTH), 0, height=height)
        return backbone(layout).detach().float()

    training = backbone.training
    backbone.eval()
    plain = states(first, second)
    changed_last = first.clone()
    changed_last[-1] = other[-1]
    changed_first = first.clone()
    changed_first[0] = other[0]
    scale = plain.square().mean().sqrt().clamp_min(1e-12)
    own, neighbours = slice(0, _LENGTH), slice(_LENGTH, None)
    last_moved, first_moved = states(changed_last, second) - plain, states(changed_first, second) - plain
    behind = (states(first, other) - plain)[own]
    probe = Probe(
        future_to_past=_largest(last_moved[own][:-1], scale),
        past_to_future=_largest(first_moved[own][1:], scale),
        neighbour=_largest(torch.cat([first_moved[neighbours], last_moved[neighbours], behind]), scale),
    )
    backbone.train(training)
    return probe


def check(backbone: Backbone, height: int = 1, columns: int = 2 * _LENGTH) -> Probe:
    """Measure, and stop loudly when the model does not attend as it was loaded to.

    Raises:
        WorkError: attention is causal where it should be bidirectional, or the reverse, or leaks between documents.
    """
    probe = measure(backbone, height, columns)
    wanted = "causal" if backbone.causal else "bidirectional"
    kind = getattr(backbone.config, "model_type", "model")
    problem = None
    if not probe.past_to_future > _MOVED:
        problem = f"an earlier token does not reach a later state (change {probe.past_to_future:.1e})"
    elif backbone.causal and not probe.future_to_past < _UNMOVED:
        problem = f"a later token moves an earlier state (change {probe.future_to_past:.1e})"
    elif not backbone.causal and not probe.future_to_past > _MOVED:
        problem = f"a later token does not move an earlier state (change {probe.future_to_past:.1e}): it is causal"
    elif not probe.neighbour < _UNMOVED:
        problem = f"documents packed into one row see each other (change {probe.neighbour:.1e})"
    if problem:
        raise WorkError(
            f"attention probe: this {kind} was loaded as {wanted}, but {problem}; its vectors would be wrong"
        )
    return probe


def _largest(difference: torch.Tensor, scale: torch.Tensor) -> float:
    return float(difference.abs().max() / scale)
