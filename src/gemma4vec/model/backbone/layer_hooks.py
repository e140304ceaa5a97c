"""Record the states between the layers of a model, compiled or not, and measure the effect of changing them.

The library's own recording (`output_hidden_states`) adds hooks to the layers, which a compiled layer cannot trace. Here
each layer's call is wrapped from outside.

Shapes: R rows, C columns, D hidden size.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from gemma4vec.model import upstream


@contextmanager
def record_states(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """While open, a forward pass fills the list: the first layer's input, then each layer's output, `[R, C, D]`."""
    states: list[Tensor] = []

    def around(_: int, call: upstream.LayerCall) -> upstream.LayerCall:
        def record(*arguments: Any, **named: Any) -> Any:
            if not states:
                states.append(arguments[0] if arguments else named["hidden_states"])
            output = call(*arguments, **named)
            states.append(output[0] if isinstance(output, tuple) else output)
            return output

        return record

    with upstream.wrapped_calls(layers, around):
        yield states


def measure_shift(run: Callable[[], Any], layer: nn.Module, columns: slice) -> Tensor:
    """Largest change of each output state of `layer`, `[C]`, when its inputs in `columns` are negated.

    `run` is a forward pass of one row; it is aborted after the layer.
    """
    found: list[Tensor] = []

    def around(_: int, call: upstream.LayerCall) -> upstream.LayerCall:
        def twice(states_RCD: Tensor, *arguments: Any, **named: Any) -> Any:
            other_RCD = states_RCD.clone()
            other_RCD[:, columns].neg_()
            outputs = [call(x, *arguments, **named) for x in (states_RCD, other_RCD)]
            plain, moved = (x[0] if isinstance(x, tuple) else x for x in outputs)
            found.append((moved - plain).detach().float().abs().amax((0, 2)))
            raise _StopForwardError

        return twice

    with upstream.wrapped_calls([layer], around), suppress(_StopForwardError):
        run()
    return found[0]


class _StopForwardError(Exception):
    """Aborts a forward pass after the layer of interest."""
