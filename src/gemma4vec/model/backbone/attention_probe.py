"""The attention probe: measure which tokens see each other.

A "bidirectional" model that is silently causal trains and runs without an error, and scores badly; so does a packed row
whose documents see each other. The probe measures the loaded model rather than trusting its config:

1. a later token of the same document changes an earlier state (bidirectional) or does not (causal);
2. an earlier token changes a later state;
3. neighbors in the same packed row change nothing, whether before or after;
4. a sliding-window layer sees exactly the tokens within `architectures.Reach`;
5. the library's own forward pass, with its own masks, agrees: the config holds the attention mode for other programs;
6. documents that share a prefix have the states of whole documents;
7. compiled layers have the states of uncompiled ones.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gemma4vec.errors import WorkError
from gemma4vec.machine.dtype import is_wide
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.layer_hooks import measure_shift, record_states
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, lay_out
from gemma4vec.model.packing.shared_prefix import NONE, SharedPrefixes

# Relative changes. An unseen token changes nothing in the same shape; the first bound allows for kernels that sum in
# another order. A visible token changes states by percents, even in bf16.
_MAX_UNSEEN_CHANGE = 1e-3
_MIN_SEEN_CHANGE = 2e-3
# Relative root mean square. bf16 rounding reaches a few percent over all layers; a missing prefix, or a kernel that
# computes something else, changes far more.
_MAX_PREFIX_CHANGE = 0.1
_LENGTH = 12
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
    scale = _scale(plain)
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
    problem = _attention_problem(backbone, probe)
    if problem is None and backbone.may_share_prefixes:
        problem = _prefix_problem(backbone, height, columns)
    if problem is None and not backbone.compiled:  # compiled layers were probed before
        problem = _library_problem(backbone) or _window_problem(backbone)
    _raise_if(problem, backbone)
    return probe


def _attention_problem(backbone: Backbone, probe: Probe) -> str | None:
    """The error, if states change where they should not, or do not where they should.

    Raises:
        WorkError: states are not finite.
    """
    if not all(map(math.isfinite, vars(probe).values())):
        otherwise = "" if is_wide(backbone.dtype) else ", or load it in fp32"
        raise WorkError(
            f"{_name(backbone)} returns states that are not finite: its weights contain NaN or infinity, or "
            f"overflow in {str(backbone.dtype).removeprefix('torch.')}; check its weights{otherwise}"
        )
    if not probe.past_to_future > _MIN_SEEN_CHANGE:
        return f"an earlier token does not reach a later state (change {probe.past_to_future:.1e})"
    if backbone.causal and not probe.future_to_past < _MAX_UNSEEN_CHANGE:
        return f"a later token moves an earlier state (change {probe.future_to_past:.1e})"
    if not backbone.causal and not probe.future_to_past > _MIN_SEEN_CHANGE:
        return f"a later token does not move an earlier state (change {probe.future_to_past:.1e}): it is causal"
    if not probe.neighbor < _MAX_UNSEEN_CHANGE:
        return f"documents packed into one row see each other (change {probe.neighbor:.1e})"
    return None


def _raise_if(problem: str | None, backbone: Backbone) -> None:
    if problem:
        mode = "causal" if backbone.causal else "bidirectional"
        raise WorkError(
            f"attention probe: {_name(backbone)} was loaded as {mode}, but {problem}; its vectors would be wrong"
        )


def _name(backbone: Backbone) -> str:
    """The kind of model, and the folder that it was read from."""
    kind, folder = (getattr(backbone.config, key, "") for key in ("model_type", "name_or_path"))
    return f"the {kind or 'model'} in {folder}" if folder else f"this {kind or 'model'}"


class TrainingProbe:
    """Checks compiled layers by the graphs that training steps use, and by no others: each takes seconds to compile.

    Make it while layers are uncompiled, since it keeps their states, and call `check` when they are compiled. A layer
    that cannot be compiled fails there, where layers can still stay uncompiled, and not in the first step.

    Args:
        backbone: in training mode, with uncompiled layers.
        columns: width of the rows in training.
        share: documents share a prefix, as in training.
        last_token_only: training reads the last token's state alone.
    """

    def __init__(self, backbone: Backbone, columns: int, *, share: bool = False, last_token_only: bool = False):
        self.backbone = backbone
        # With one layer alone, last tokens' states do not show what an earlier token saw.
        self.last_token_only = last_token_only and len(backbone.layers) > 1
        self.layouts = _changed_layouts(backbone, max(columns - 1, 4 * _LENGTH) | 1, share=share)
        self.first_own = _LENGTH if share else 0
        with torch.no_grad():
            self.uncompiled = [part.detach() for part in self._states(self.layouts[0])]

    def check(self) -> Probe:
        """Run a forward and a backward pass, and forward passes with changed tokens. Gradients are dropped.

        Raises:
            WorkError: as `check`; or compiled layers have other states than uncompiled ones.
        """
        plain = self._states(self.layouts[0])
        if plain[-1].requires_grad:
            plain[-1].square().mean().backward()
        for parameter in self.backbone.parameters():
            parameter.grad = None
        plain = [part.detach() for part in plain]
        moved = [self._moved(plain, layout) for layout in self.layouts[1:]]
        probe = self._probe(*moved)
        _raise_if(_attention_problem(self.backbone, probe) or self._compiled_problem(plain), self.backbone)
        return probe

    def _states(self, layout: PackedBatch) -> list[Tensor]:
        """States of all tokens, `[T, D]`; or these before the last layer, and those of last tokens after it, `[N, D]`.

        Dropout draws the same for every layout, so that a state moves only because of tokens.
        """
        if _has_dropout(self.backbone):
            torch.manual_seed(0)
        if not self.last_token_only:
            return [self.backbone(layout).float()]
        supported = self.backbone.supports_last_token_only(layout)
        with record_states(self.backbone.layers) as between:
            last = self.backbone(layout, last_token_only=supported).float()
        last_ND = last if supported else last.index_select(0, (layout.lengths_N.cumsum(0) - 1).to(last.device))
        cells_T = layout.cells_T.to(last.device)
        return [between[-2].flatten(0, 1).index_select(0, cells_T).float(), last_ND]

    def _moved(self, plain: list[Tensor], layout: PackedBatch) -> Tensor:
        """How far each state moves when tokens change, relative to the states' root mean square: `[T]` or `[T + N]`."""
        pairs = zip(plain, self._states(layout), strict=True)
        return torch.cat([(b.detach() - a).abs().amax(1) / _scale(a) for a, b in pairs])

    def _probe(self, last: Tensor, first: Tensor, neighbor: Tensor) -> Probe:
        """What moves when the first document's last token changes, its first own one, and the second document."""
        lengths = self.layouts[0].lengths_N.tolist()
        length, tokens = lengths[0], sum(lengths)
        others = torch.ones(len(last), dtype=torch.bool, device=last.device)
        others[:length] = False
        others[tokens : tokens + 1] = False  # its last token's state, if these are apart
        later = torch.cat([first[self.first_own + 1 : length], first[tokens : tokens + 1]])
        unseen = torch.cat([last[others], first[others], neighbor[~others], neighbor[lengths[0] + lengths[1] : tokens]])
        return Probe(float(last[: length - 1].max()), float(later.max()), float(unseen.max()))

    def _compiled_problem(self, compiled: list[Tensor]) -> str | None:
        """The error, if compiled layers have other states than uncompiled ones, which draw another dropout."""
        if _has_dropout(self.backbone):
            return None
        for one, other in zip(self.uncompiled, compiled, strict=True):
            change = float((one - other).square().mean().sqrt() / _scale(one))
            if not change < _MAX_PREFIX_CHANGE:
                return f"compiled layers have other states than uncompiled ones (change {change:.1e})"
        return None


def _changed_layouts(backbone: Backbone, columns: int, *, share: bool) -> list[PackedBatch]:
    """Four documents in three rows; then with another last token, another first own token, another second document."""
    # torch.compile merges sizes that are equal on the first call and recompiles when they differ: so three rows, of at
    # most two documents, and an odd number of columns, unlike model widths.
    prefix, *ends, other, unlike = _random_ids(backbone, 7)
    changed = _changed(backbone, ends[0], unlike)
    last, first = ends[0].clone(), ends[0].clone()
    last[-1], first[0] = changed[-1], changed[0]
    versions = [ends, [last, *ends[1:]], [first, *ends[1:]], [ends[0], _changed(backbone, ends[1], other), *ends[2:]]]
    found = SharedPrefixes((tuple(prefix.tolist()),), (0,) * len(ends)) if share else NONE
    begin = prefix.tolist() if share else []
    return [
        lay_out([Tokens([*begin, *end.tolist()]) for end in version], [[0, 1], [2], [3]], columns, 0, prefixes=found)
        for version in versions
    ]


def _prefix_problem(backbone: Backbone, height: int, columns: int) -> str | None:
    """The error, if documents with a shared prefix have other states than whole documents."""
    documents, found = _with_common_prefix(backbone, 2 * height)
    columns = max(columns, 4 * _LENGTH)
    rows = [[2 * row, 2 * row + 1] for row in range(height)]
    with _eval_mode(backbone), torch.no_grad():
        whole, shared = (
            backbone(lay_out(documents, rows, columns, 0, prefixes=prefixes)).float() for prefixes in (NONE, found)
        )
    change = float((whole - shared).square().mean().sqrt() / _scale(whole))
    if not change < _MAX_PREFIX_CHANGE:
        return f"documents that share a prefix get other states than whole ones (change {change:.1e})"
    return None


def _library_problem(backbone: Backbone) -> str | None:
    """The error, if the library itself would run this model in another attention mode."""
    first, other = _random_ids(backbone, 2)
    changed = first.clone()
    changed[-1] = _changed(backbone, first, other)[-1]
    with _eval_mode(backbone), torch.no_grad():
        plain, moved = (backbone.library_states(ids[None]).float()[0, :-1] for ids in (first, changed))
    change = _relative_change(moved - plain, _scale(plain))
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


def _changed(backbone: Backbone, first: Tensor, drawn: Tensor) -> Tensor:
    """`drawn`, with another id wherever it equals `first`."""
    vocabulary = int(backbone.config.vocab_size)
    return _unlike(first, drawn, min(10, vocabulary // 2), vocabulary)


def _has_dropout(backbone: Backbone) -> bool:
    """Whether a forward pass in training mode draws at random."""
    dropped = any(isinstance(module, nn.Dropout) and module.p > 0 for module in backbone.modules())
    return backbone.training and (dropped or bool(getattr(backbone.config, "attention_dropout", 0.0)))


def _scale(states: Tensor) -> Tensor:
    return states.square().mean().sqrt().clamp_min(1e-12)


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
