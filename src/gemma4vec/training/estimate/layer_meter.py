"""Seconds and kept bytes of each decoder layer while a model trains, measured from outside the layers.

States enter and leave a layer through an identity whose backward reads the clock. That separates the backward of one
layer from the next, compiled or not, checkpointed or not.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.model import upstream
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.denoiser.decoder import Decoder
from gemma4vec.training.engine.activation_memory import count_kept_bytes

# (layer, or None for everything else; whether compiled layers accept the layout)
Place = tuple[int | None, bool]


class LayerMeter:
    """Counts by layer and kind of layout; a decoder's layers follow the backbone's.

    Attributes:
        seconds: forward and backward of layers; None: of the whole step.
        kept_bytes: bytes kept for the backward pass, without parameters; each storage is counted once.
        cells: number of cells.
    """

    def __init__(self, backbone: Backbone, trained: Sequence[bool], decoder: Decoder | None = None):
        self.backbone = backbone
        self.decoder = decoder
        self.layers: list[nn.Module] = [*backbone.layers, *(decoder.layers if decoder is not None else ())]
        self.trained = list(trained)
        self.compilable = False
        self.layer: int | None = None
        self.seconds: defaultdict[Place, float] = defaultdict(float)
        self.kept_bytes: defaultdict[Place, float] = defaultdict(float)
        self.cells: defaultdict[bool, int] = defaultdict(int)
        self._began: dict[int, float] = {}
        self._anchor = torch.zeros((), device=backbone.device, requires_grad=True)
        # Tensors from outside the layers (masks, rotary tables) by address; kept alive, so that no address is reused.
        self._shared: dict[int, Tensor] = {}

    def clear(self) -> None:
        """Set all counts to zero."""
        self.seconds.clear()
        self.kept_bytes.clear()
        self.cells.clear()
        self._shared.clear()

    def now(self) -> float:
        """The clock, after all earlier work is done."""
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize(self.backbone.device)
        return time.perf_counter()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Measure while this is open."""
        read = [self.backbone] if self.decoder is None else [self.backbone, self.decoder]
        watches = [module.register_forward_pre_hook(self._note_layout) for module in read]
        try:
            with upstream.wrapped_calls(self.layers, self._around):
                yield
        finally:
            for watch in watches:
                watch.remove()

    @contextmanager
    def keeping_count(self) -> Iterator[None]:
        """While this is open, count what is kept for the backward pass."""

        def count(address: int, size: int) -> None:
            place = (None if address in self._shared else self.layer, self.compilable)
            self.kept_bytes[place] += size

        weights = [*self.backbone.parameters(), *(self.decoder.parameters() if self.decoder is not None else ())]
        with count_kept_bytes(self.backbone, weights, count):
            yield

    def gradient(self, layer: int, compilable: bool, begins: bool) -> None:
        """The gradient enters a layer from above, or leaves it below."""
        now = self.now()
        if begins:
            self._began[layer] = now
        else:
            self.seconds[layer, compilable] += now - self._began[layer]

    def _note_layout(self, _: Any, arguments: tuple[Any, ...]) -> None:
        self.compilable = arguments[0].compilable
        self.cells[self.compilable] += arguments[0].all_tokens

    def _around(self, number: int, call: upstream.LayerCall) -> upstream.LayerCall:
        def measured(states: Tensor, *others: Any, **named: Any) -> Any:
            self._shared |= {t.untyped_storage().data_ptr(): t.detach() for t in _tensors((others, named))}
            if self.trained[number]:
                states = _Boundary.apply(states, self._anchor, self, number, False)
            started = self.now()
            self.layer = number
            output = call(states, *others, **named)
            self.layer = None
            self.seconds[number, self.compilable] += self.now() - started
            if not self.trained[number]:
                return output
            if isinstance(output, tuple):
                return (_Boundary.apply(output[0], self._anchor, self, number, True), *output[1:])
            return _Boundary.apply(output, self._anchor, self, number, True)

        return measured


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


class _Boundary(torch.autograd.Function):
    """The identity; its backward notifies the meter. The anchor makes it run where the states need no gradient."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, anchor: Tensor, meter: LayerMeter, layer: int, begins: bool) -> Tensor:
        ctx.note = (meter, layer, meter.compilable, begins)
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]  # torch types it for any number
        meter, layer, compilable, begins = ctx.note
        meter.gradient(layer, compilable, begins)
        return gradient, None, None, None, None
