"""The states between the layers of a model while it runs, compiled or not.

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
