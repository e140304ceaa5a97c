"""What is left of a layer's cost when it is compiled: its time and memory, compiled over uncompiled.

To compile the layers takes a minute or more, to measure them uncompiled takes seconds. So a first dry run measures
uncompiled layers and takes these shares: those of this machine if they were measured here (`--measure-compiled`), else
defaults.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gemma4vec.files import optional_file, write_json
from gemma4vec.model.backbone.backbone import KEPT_FRACTION
from gemma4vec.model.backbone.compilation import CompileChoice
from gemma4vec.model.backbone.meta_model import Kind
from gemma4vec.reading.json_values import JsonError, load_json
from gemma4vec.training.estimate.layers import Costs, LayerCosts
from gemma4vec.training.estimate.memory import activation_bytes

_LEAST_BYTES = 1.0  # frozen layers keep nothing


@dataclass(frozen=True)
class Share:
    """Compiled over uncompiled: the time of a layer, and the bytes that it keeps until its backward."""

    seconds: float
    kept: float


@dataclass(frozen=True)
class CompiledShares:
    """Shares by kind of layer.

    Attributes:
        usual: of a kind that is not in `by_kind`.
        buffers: of the memory that a step needs beside what its layers keep.
        low, high: range of the share of time, over models and machines.
        here: whether they were measured on this machine.
        by_kind: of the kinds that were measured here.
    """

    usual: Share
    buffers: float
    low: float
    high: float
    here: bool = False
    by_kind: Mapping[Kind, Share] = field(default_factory=dict)

    def of(self, kind: Kind) -> Share:
        """The share of a kind."""
        return self.by_kind.get(kind, self.usual)


# From whole steps on two cores in bf16 (benchmarks/results/switches-*); the range is a judgment, not a measurement.
DEFAULT = CompiledShares(Share(seconds=0.58, kept=0.84), buffers=0.75, low=0.48, high=0.66)


def as_compiled(
    measured: LayerCosts,
    shares: CompiledShares,
    choice: CompileChoice,
    *,
    input_bytes: float,
    checkpointing: bool,
    selective: bool = False,
    probabilities: float = 0.0,
    larger: float = 1.0,
) -> LayerCosts:
    """The costs of compiled layers, from those of uncompiled ones. What is outside the layers is not compiled.

    Args:
        measured: uncompiled layers.
        shares: what is left of their costs.
        choice: why the run compiles them.
        input_bytes: bytes of one cell as it enters a layer.
        checkpointing: whether layers keep only their input.
        selective: whether the compiler plans to keep a part of what it could use.
        probabilities: bytes of attention that a cell keeps where it is computed as two matrix products, which only
            compiled layers do; shares that were measured here contain it.
        larger: cells of the run's micro-batches over those that were measured.
    """
    part, more = KEPT_FRACTION if selective else 1.0, 0.0 if shares.here else probabilities
    kept = {
        (kind, compilable): size
        if kind is None or not compilable or size < _LEAST_BYTES
        else part * (size * shares.of(kind).kept + more)
        for (kind, compilable), size in measured.kept_bytes.items()
    }
    seconds = {
        (kind, compilable): cost * (1.0 if kind is None or not compilable else shares.of(kind).seconds)
        for (kind, compilable), cost in measured.seconds.items()
    }
    peak = measured.peak_bytes
    if peak is not None:
        buffers = _buffers(measured, measured.kept_bytes, input_bytes, checkpointing)
        compiled = activation_bytes(kept, measured.kinds, measured.peak_cells, input_bytes, checkpointing)
        peak = round(compiled + shares.buffers * buffers * max(1.0, larger))
    return replace(measured, compile=choice, seconds=seconds, kept_bytes=kept, peak_bytes=peak)


def compare_costs(
    compiled: LayerCosts, uncompiled: LayerCosts, *, input_bytes: float, checkpointing: bool
) -> CompiledShares:
    """The shares that two measurements of the same layers show."""
    by_kind = {}
    for kind in dict.fromkeys(compiled.kinds):
        place = (kind, True)
        if not uncompiled.seconds.get(place) or place not in compiled.seconds:
            continue
        before = uncompiled.kept_bytes.get(place, 0.0)
        kept = compiled.kept_bytes.get(place, 0.0) / before if before >= _LEAST_BYTES else DEFAULT.usual.kept
        by_kind[kind] = Share(compiled.seconds[place] / uncompiled.seconds[place], kept)
    buffers = [_buffers(costs, costs.kept_bytes, input_bytes, checkpointing) for costs in (compiled, uncompiled)]
    times = [share.seconds for share in by_kind.values()] or [DEFAULT.usual.seconds]
    return CompiledShares(
        DEFAULT.usual,
        buffers[0] / buffers[1] if min(buffers) >= _LEAST_BYTES else DEFAULT.buffers,
        min(times),
        max(times),
        here=True,
        by_kind=by_kind,
    )


def _buffers(measured: LayerCosts, kept: Costs, input_bytes: float, checkpointing: bool) -> float:
    shallow = activation_bytes(kept, measured.kinds, measured.peak_cells, input_bytes, checkpointing)
    return max(0.0, (measured.peak_bytes or 0.0) - shallow)


def load_shares(file: Path, kinds: Sequence[Kind]) -> CompiledShares:
    """The shares that were measured on this machine; the defaults where a kind was not, or the file is damaged."""
    try:
        value = load_json(file)
        by_kind = {tuple(kind): Share(float(seconds), float(kept)) for kind, seconds, kept in value["by_kind"]}
        found = CompiledShares(
            DEFAULT.usual, float(value["buffers"]), float(value["low"]), float(value["high"]), True, by_kind
        )
    except (OSError, JsonError, KeyError, TypeError, ValueError):
        return DEFAULT
    return found if set(kinds) <= set(by_kind) else DEFAULT


def save_shares(file: Path, shares: CompiledShares) -> None:
    """Store shares; a cache that cannot be written is done without."""
    value: dict[str, Any] = {
        "time": time.time(),
        "buffers": shares.buffers,
        "low": shares.low,
        "high": shares.high,
        "by_kind": [[list(kind), share.seconds, share.kept] for kind, share in shares.by_kind.items()],
    }
    with optional_file("shares of compiled layers"):
        write_json(file, value)
