"""The attention probe: measure which tokens see each other.

A "bidirectional" model that is silently causal trains and runs without an error, and scores badly; so does a packed row
whose documents see each other. The probe measures the loaded model rather than trusting its config:

1. a later token of the same document changes an earlier state (bidirectional) or does not (causal);
2. an earlier token changes a later state;
3. neighbors in the same packed row change nothing, whether before or after;
4. a sliding-window layer sees exactly the tokens within `architectures.Reach`;
5. the library's own forward pass, with its own masks, agrees: the config holds the attention mode for other programs;
6. documents that share a prefix have the states of whole documents.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gemma4vec.errors import WorkError
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.layer_hooks import measure_shift
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, lay_out
from gemma4vec.model.packing.shared_prefix import NONE, SharedPrefixes

# Relative changes. An unseen token changes nothing in the same shape; the first bound allows for kernels that sum in
# another order. A visible token changes states by percents, even in bf16.
_MAX_UNSEEN_CHANGE = 1e-3
_MIN_SEEN_CHANGE = 2e-3
# Relative root mean square. bf16 rounding reaches a few percent over all layers; a missing prefix changes far more.
_MAX_PREFIX_CHANGE = 0.1
_LENGTH = 12
# Rows of the warm-up backward pass. torch.compile merges sizes that are equal on the first call and recompiles when
# they differ. So avoid 2, the minimum number of last tokens in a row, and use an odd number of columns, unlike model
# widths.
_BACKWARD_ROWS = 3
# Wider windows are not probed: a row as long as Mistral's 4096 takes seconds a layer.
_LONGEST_WINDOW = 2048


@dataclass(frozen=True)
class Probe:
    """Relative changes of states: the largest change divided by the root mean square of the states."""

    future_to_past: float
    past_to_future: float
    neighbor: float


def measure(backbone: Backbone, height: int = 1, columns: int = 2 * _LENGTH) -> Probe:
    """Measure on `height` rows of `columns` columns; use the training shape for compiled layers."""
    vocabulary = int(backbone.config.vocab_size)
    generator = torch.Generator().manual_seed(0)
    lowest = min(10, vocabulary // 2)
    first, second = torch.randint(lowest, vocabulary, (2, _LENGTH), generator=generator)
    other = _unlike(first, torch.randint(lowest, vocabulary, (_LENGTH,), generator=generator), lowest, vocabulary)

    def states(document: torch.Tensor, neighbor: torch.Tensor) -> torch.Tensor:
        documents = [Tokens(document.tolist()), Tokens(neighbor.tolist())]
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
    own, neighbors = slice(0, _LENGTH), slice(_LENGTH, None)
    last_moved, first_moved = states(changed_last, second) - plain, states(changed_first, second) - plain
    behind = (states(first, other) - plain)[own]
    probe = Probe(
        future_to_past=_relative_change(last_moved[own][:-1], scale),
        past_to_future=_relative_change(first_moved[own][1:], scale),
        neighbor=_relative_change(torch.cat([first_moved[neighbors], last_moved[neighbors], behind]), scale),
    )
    backbone.train(training)
    return probe


def check(backbone: Backbone, height: int = 1, columns: int = 2 * _LENGTH) -> Probe:
    """Measure, and raise an error if attention differs from the mode in which the model was loaded.

    Raises:
        WorkError: attention is causal instead of bidirectional, or the reverse; it leaks between documents; a window is
            too wide or too narrow; or states are not finite.
    """
    probe = measure(backbone, height, columns)
    wanted = "causal" if backbone.causal else "bidirectional"
    kind = getattr(backbone.config, "model_type", "model")
    if not all(map(math.isfinite, vars(probe).values())):
        raise WorkError(
            f"this {kind} returns states that are not finite: its weights contain NaN or infinity, or overflow in "
            f"{str(backbone.dtype).removeprefix('torch.')}; check the file, or load it in fp32"
        )
    problem = None
    if not probe.past_to_future > _MIN_SEEN_CHANGE:
        problem = f"an earlier token does not reach a later state (change {probe.past_to_future:.1e})"
    elif backbone.causal and not probe.future_to_past < _MAX_UNSEEN_CHANGE:
        problem = f"a later token moves an earlier state (change {probe.future_to_past:.1e})"
    elif not backbone.causal and not probe.future_to_past > _MIN_SEEN_CHANGE:
        problem = f"a later token does not move an earlier state (change {probe.future_to_past:.1e}): it is causal"
    elif not probe.neighbor < _MAX_UNSEEN_CHANGE:
        problem = f"documents packed into one row see each other (change {probe.neighbor:.1e})"
    if problem is None and backbone.may_share_prefixes:
        problem = _prefix_problem(backbone, height, columns)
    if problem is None and not backbone.compiled:  # compiled layers were probed before
        problem = _library_problem(backbone) or _window_problem(backbone)
    if problem:
        raise WorkError(
            f"attention probe: this {kind} was loaded as {wanted}, but {problem}; its vectors would be wrong"
        )
    return probe


def warm_up_backward(backbone: Backbone, columns: int, *, share: bool = False, last_token_only: bool = False) -> None:
    """Run one forward and one backward pass on random tokens, as in training; gradients are dropped.

    A layer that cannot be compiled fails here, where layers can still stay uncompiled, and not in the first step.

    Args:
        backbone: with compiled layers.
        columns: width of the rows in training.
        share: documents share a prefix, as in training.
        last_token_only: compute the last layer for last tokens alone if possible, as in training.
    """
    documents, found = _with_common_prefix(backbone, _BACKWARD_ROWS)
    rows = [[row] for row in range(_BACKWARD_ROWS)]
    layout = lay_out(documents, rows, max(columns - 1, 2 * _LENGTH) | 1, 0, prefixes=found if share else NONE)
    states = backbone(layout, last_token_only=last_token_only and backbone.supports_last_token_only(layout))
    if states.requires_grad:
        states.float().square().mean().backward()
    for parameter in backbone.parameters():
        parameter.grad = None


def _prefix_problem(backbone: Backbone, height: int, columns: int) -> str | None:
    """The error, if documents with a shared prefix have other states than whole documents."""
    documents, found = _with_common_prefix(backbone, 2 * height)
    columns = max(columns, 4 * _LENGTH)
    rows = [[2 * row, 2 * row + 1] for row in range(height)]
    with _eval_mode(backbone), torch.no_grad():
        whole, shared = (
            backbone(lay_out(documents, rows, columns, 0, prefixes=prefixes)).float() for prefixes in (NONE, found)
        )
    change = float((whole - shared).square().mean().sqrt() / whole.square().mean().sqrt().clamp_min(1e-12))
    if not change < _MAX_PREFIX_CHANGE:
        return f"documents that share a prefix get other states than whole ones (change {change:.1e})"
    return None


def _library_problem(backbone: Backbone) -> str | None:
    """The error, if the library itself would run this model in another attention mode."""
    first, other = _random_ids(backbone, 2)
    vocabulary = int(backbone.config.vocab_size)
    other = _unlike(first, other, min(10, vocabulary // 2), vocabulary)
    changed = first.clone()
    changed[-1] = other[-1]
    with _eval_mode(backbone), torch.no_grad():
        plain, moved = (backbone.library_states(ids[None]).float()[0, :-1] for ids in (first, changed))
    change = _relative_change(moved - plain, plain.square().mean().sqrt().clamp_min(1e-12))
    if backbone.causal and not change < _MAX_UNSEEN_CHANGE:
        return f"its config lets the transformers library run it both ways (change {change:.1e})"
    if not backbone.causal and not change > _MIN_SEEN_CHANGE:
        return f"its config lets the transformers library run it as causal (change {change:.1e})"
    return None


def _window_problem(backbone: Backbone) -> str | None:
    """The error, if the first layer with a sliding window sees too far or not far enough, with our or its own masks.

    A block of tokens at one end is changed. The last token that should see all of it must change, and the first token
    that should see none of it must not.
    """
    reach = backbone.reach
    if reach is None or max(reach) > _LONGEST_WINDOW:
        return None
    types = backbone.config.layer_types if backbone.architecture.masks_by_layer_type else ["sliding_attention"]
    layer = backbone.layers[types.index("sliding_attention")]
    block = max(1, (reach.back if backbone.causal else min(reach)) // 4)
    length = max(reach) + block + 1
    ids = _random_ids(backbone, 1, length)[0]
    layout = lay_out([Tokens(ids.tolist())], [[0]], length, 0)
    ways = {"": lambda: backbone(layout), " in the transformers library": lambda: backbone.library_states(ids[None])}
    for where, run in ways.items():
        with _eval_mode(backbone), torch.no_grad():
            moved = {"back": measure_shift(run, layer, slice(0, block))}
            if not backbone.causal:
                moved["ahead"] = measure_shift(run, layer, slice(length - block, length)).flip(0)
        for side, moved_C in moved.items():
            meant = getattr(reach, side)
            inside, outside = float(moved_C[meant]), float(moved_C[meant + block :].max())
            if not inside > 0:
                return f"a sliding window reaches less than {meant} tokens {side}{where}"
            if not outside < _MAX_UNSEEN_CHANGE * inside:
                farthest = int((moved_C > _MAX_UNSEEN_CHANGE * inside).nonzero().max()) - block + 1
                return f"a sliding window reaches {farthest} or more tokens {side}{where}, not {meant}"
    return None


def _with_common_prefix(backbone: Backbone, count: int) -> tuple[list[Tokens], SharedPrefixes]:
    """Random documents with a common prefix, and that prefix."""
    prefix, *ends = _random_ids(backbone, 1 + count)
    documents = [Tokens(torch.cat([prefix, end]).tolist()) for end in ends]
    return documents, SharedPrefixes((tuple(prefix.tolist()),), (0,) * count)


def _unlike(first: torch.Tensor, drawn: torch.Tensor, lowest: int, vocabulary: int) -> torch.Tensor:
    """`drawn`, with the next id wherever it equals `first`: a token that was not changed would move nothing."""
    following = torch.where(drawn + 1 < vocabulary, drawn + 1, lowest)
    return torch.where(drawn == first, following, drawn)


def _random_ids(backbone: Backbone, rows: int, length: int = _LENGTH) -> torch.Tensor:
    vocabulary = int(backbone.config.vocab_size)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(min(10, vocabulary // 2), vocabulary, (rows, length), generator=generator)


@contextmanager
def _eval_mode(backbone: Backbone) -> Iterator[None]:
    """Without dropout."""
    training = backbone.training
    backbone.eval()
    try:
        yield
    finally:
        backbone.train(training)


def _relative_change(difference: torch.Tensor, scale: torch.Tensor) -> float:
    return float(difference.abs().max() / scale)
