"""The start-up probe: does attention reach where it should, and nowhere else?

A "bidirectional" model that is silently causal trains, runs and scores badly without one error message; a packed row
whose documents see each other is as quiet. So these facts are measured on the loaded model, not read off its config:

1. a later token of the same document moves an earlier state (bidirectional) or does not (causal);
2. an earlier token moves a later state;
3. a neighbour in the same packed row moves nothing, neither the one before nor the one behind;
4. a layer with a sliding window sees as far as its family says, and no token farther;
5. the library's own forward, with its own masks, does the same: the mode stands in the config, so that a saved model
   attends elsewhere as it did here;
6. where documents may share a beginning, their states are those of whole documents.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gemma4vec.errors import WorkError
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.layer_hooks import moved_by
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, lay_out
from gemma4vec.model.packing.shared_prefix import NONE, SharedPrefix

# Relative changes. In one and the same shape an unseen token changes nothing at all, so the first bound only leaves
# room for kernels that sum in another order; a seen one moves states by percents, even in bf16.
_UNMOVED = 1e-3
_MOVED = 2e-3
# Root mean squares. bf16 rounds to some percent over all layers; without its beginning a document is another one.
_UNCHANGED = 0.1
_LENGTH = 12
# Rows that are passed back. Numbers that are equal the first time are one number to the compiler, and it compiles again
# as soon as they differ: so not 2, which is how many last tokens a row has at least, and an odd number of columns,
# which no width of a model is.
_PASSED_BACK = 3
# Wider windows are not probed: a row as long as Mistral's 4096 takes seconds a layer.
_LONGEST_WINDOW = 2048


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
        layout: PackedBatch = lay_out(documents, [[0, 1]], max(columns, 2 * _LENGTH), 0, height=height)
        with torch.no_grad():
            return backbone(layout).float()

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
        WorkError: attention is causal where it should be bidirectional, or the reverse, or leaks between documents; or
            states are not finite.
    """
    probe = measure(backbone, height, columns)
    wanted = "causal" if backbone.causal else "bidirectional"
    kind = getattr(backbone.config, "model_type", "model")
    if not all(map(math.isfinite, vars(probe).values())):
        raise WorkError(
            f"this {kind} gives states that are not finite: its weights hold NaN or infinity, or overflow in "
            f"{str(backbone.dtype).removeprefix('torch.')}; look at the file, or load it in fp32"
        )
    problem = None
    if not probe.past_to_future > _MOVED:
        problem = f"an earlier token does not reach a later state (change {probe.past_to_future:.1e})"
    elif backbone.causal and not probe.future_to_past < _UNMOVED:
        problem = f"a later token moves an earlier state (change {probe.future_to_past:.1e})"
    elif not backbone.causal and not probe.future_to_past > _MOVED:
        problem = f"a later token does not move an earlier state (change {probe.future_to_past:.1e}): it is causal"
    elif not probe.neighbour < _UNMOVED:
        problem = f"documents packed into one row see each other (change {probe.neighbour:.1e})"
    if problem is None and backbone.may_share_prefixes:
        problem = _problem_of_sharing(backbone, height, columns)
    if problem is None and not backbone.compiled:  # compiled layers were loaded, and probed, uncompiled
        problem = _problem_of_the_library(backbone) or _problem_of_the_window(backbone)
    if problem:
        raise WorkError(
            f"attention probe: this {kind} was loaded as {wanted}, but {problem}; its vectors would be wrong"
        )
    return probe


def pass_back(backbone: Backbone, columns: int, *, share: bool = False, only_ends: bool = False) -> None:
    """A forward and a backward pass on random tokens, as training does them; gradients are dropped.

    Whatever cannot be compiled fails here, where layers can still be left uncompiled, and not in the first step. With
    `share` (the documents have a beginning in common) and `only_ends` (where the layers can give these alone) as
    training has them, its steps find their code compiled.
    """
    documents, found = _begun_alike(backbone, _PASSED_BACK)
    rows = [[row] for row in range(_PASSED_BACK)]
    layout = lay_out(documents, rows, max(columns - 1, 2 * _LENGTH) | 1, 0, beginnings=found if share else NONE)
    states = backbone(layout, only_ends=only_ends and backbone.computes_ends(layout))
    if states.requires_grad:
        states.float().square().mean().backward()
    for parameter in backbone.parameters():
        parameter.grad = None


def _problem_of_sharing(backbone: Backbone, height: int, columns: int) -> str | None:
    """What is wrong with documents that stand behind a beginning which they share."""
    documents, found = _begun_alike(backbone, 2 * height)
    columns = max(columns, 4 * _LENGTH)
    rows = [[2 * row, 2 * row + 1] for row in range(height)]
    with _evaluating(backbone), torch.no_grad():
        whole, shared = (
            backbone(lay_out(documents, rows, columns, 0, beginnings=beginnings)).float()
            for beginnings in (NONE, found)
        )
    change = float((whole - shared).square().mean().sqrt() / whole.square().mean().sqrt().clamp_min(1e-12))
    if not change < _UNCHANGED:
        return f"documents that share a beginning get other states than whole ones (change {change:.1e})"
    return None


def _problem_of_the_library(backbone: Backbone) -> str | None:
    """What is wrong with the direction in which the library itself would run this model."""
    first, other = _random_ids(backbone, 2)
    changed = first.clone()
    changed[-1] = other[-1]
    with _evaluating(backbone), torch.no_grad():
        plain, moved = (backbone.library_states(ids[None]).float()[0, :-1] for ids in (first, changed))
    change = _largest(moved - plain, plain.square().mean().sqrt().clamp_min(1e-12))
    if backbone.causal and not change < _UNMOVED:
        return f"its config lets the transformers library run it both ways (change {change:.1e})"
    if not backbone.causal and not change > _MOVED:
        return f"its config lets the transformers library run it as causal (change {change:.1e})"
    return None


def _problem_of_the_window(backbone: Backbone) -> str | None:
    """What is wrong with the first layer that has a sliding window, in our masks or in the library's.

    A block of tokens at one end is changed. The last token that is meant to see all of it must move, and the first that
    is meant to see none of it must not.
    """
    reach = backbone.reach
    if reach is None or max(reach) > _LONGEST_WINDOW:
        return None
    types = backbone.config.layer_types if backbone.family.masks_by_layer_type else ["sliding_attention"]
    layer = backbone.layers[types.index("sliding_attention")]
    block = max(1, (reach.back if backbone.causal else min(reach)) // 4)
    length = max(reach) + block + 1
    ids = _random_ids(backbone, 1, length)[0]
    layout = lay_out([Tokens(ids.tolist())], [[0]], length, 0)
    ways = {"": lambda: backbone(layout), " in the transformers library": lambda: backbone.library_states(ids[None])}
    for where, run in ways.items():
        with _evaluating(backbone), torch.no_grad():
            moved = {"back": moved_by(run, layer, slice(0, block))}
            if not backbone.causal:
                moved["ahead"] = moved_by(run, layer, slice(length - block, length)).flip(0)
        for side, moved_C in moved.items():
            meant = getattr(reach, side)
            inside, outside = float(moved_C[meant]), float(moved_C[meant + block :].max())
            if not inside > 0:
                return f"a sliding window reaches less than {meant} tokens {side}{where}"
            if not outside < _UNMOVED * inside:
                farthest = int((moved_C > _UNMOVED * inside).nonzero().max()) - block + 1
                return f"a sliding window reaches {farthest} or more tokens {side}{where}, not {meant}"
    return None


def _begun_alike(backbone: Backbone, count: int) -> tuple[list[Tokens], SharedPrefix]:
    """Random documents that begin alike, and what they begin with."""
    beginning, *ends = _random_ids(backbone, 1 + count)
    documents = [Tokens(torch.cat([beginning, end]).tolist()) for end in ends]
    return documents, SharedPrefix((tuple(beginning.tolist()),), (0,) * count)


def _random_ids(backbone: Backbone, rows: int, length: int = _LENGTH) -> torch.Tensor:
    vocabulary = int(backbone.config.vocab_size)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(min(10, vocabulary // 2), vocabulary, (rows, length), generator=generator)


@contextmanager
def _evaluating(backbone: Backbone) -> Iterator[None]:
    """Without dropout."""
    training = backbone.training
    backbone.eval()
    try:
        yield
    finally:
        backbone.train(training)


def _largest(difference: torch.Tensor, scale: torch.Tensor) -> float:
    return float(difference.abs().max() / scale)
