"""The states between the layers of a model while it runs, compiled or not; and what a change of them does.

The library's own recording (`output_hidden_states`) hangs hooks into the layers, which a compiled layer cannot trace.
Here each layer's call is wrapped from the outside, and unwrapped again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def recorded(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """While this is open, a forward fills the list: what enters the first layer, then what leaves each layer."""
    states: list[Tensor] = []
    calls = [layer._compiled_call_impl for layer in layers]

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        def record(*arguments: Any, **named: Any) -> Any:
            if not states:
                states.append(arguments[0] if arguments else named["hidden_states"])
            output = call(*arguments, **named)
            states.append(output[0] if isinstance(output, tuple) else output)
            return output

        return record

    for layer, call in zip(layers, calls, strict=True):
        layer._compiled_call_impl = around(call or layer._call_impl)
    try:
        yield states
    finally:
        for layer, call in zip(layers, calls, strict=True):
            layer._compiled_call_impl = call


def moved_by(run: Callable[[], Any], layer: nn.Module, columns: slice) -> Tensor:
    """How far the states that leave `layer` move, `[C]`, when those that enter it are negated in some columns.

    `run` is a forward of one row. It is cut off behind the layer: nothing after it is computed.
    """
    found: list[Tensor] = []
    compiled = layer._compiled_call_impl
    call: Callable[..., Any] = compiled or layer._call_impl

    def twice(states_RCD: Tensor, *arguments: Any, **named: Any) -> Any:
        other_RCD = states_RCD.clone()
        other_RCD[:, columns].neg_()
        outputs = [call(x, *arguments, **named) for x in (states_RCD, other_RCD)]
        plain, moved = (x[0] if isinstance(x, tuple) else x for x in outputs)
        found.append((moved - plain).detach().float().abs().amax((0, 2)))
        raise _EnoughError

    layer._compiled_call_impl = twice
    try:
        run()
    except _EnoughError:
        pass
    finally:
        layer._compiled_call_impl = compiled
    return found[0]


class _EnoughError(Exception):
    """Ends a forward whose rest nobody needs."""
