"""A GPU for machines without one: its tensors say that they are on another device, and are computed on the CPU.

What a GPU refuses is refused: an operation on tensors of two devices. What makes a program wait for a GPU is noted:
values that are read back, results whose size depends on values, copies that are not asked to run beside (`waits`).
Memory, streams, kernels and compilation are not pretended.

It stands where torch has room for devices of other makers. Tensors are wrappers, so a few things that need a tensor's
own memory are not possible (numpy, safetensors, `torch.compile`). The process should end by `os._exit`: a thread that
autograd started for the device outlives the interpreter.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
aten = torch.ops.aten
# The CPU must know their result, or its size, before it can go on.
_READ = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}
_SIZED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor,
}
_BY_INDICES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_COPIES = {aten._to_copy.default, aten.copy_.default}

# How often it was waited for, by operation and the functions of this project that led there, the innermost first.
waits: Counter[tuple[str, tuple[str, ...]]] = Counter()


class PretendTensor(Tensor):
    """`inner`, a tensor on the CPU, said to be on the GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "PretendTensor":
        made: PretendTensor = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> "PretendTensor":
        return PretendTensor(inner["inner"])

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({self.inner!r})"

    def untyped_storage(self) -> Any:
        """Where the values are."""
        return self.inner.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """New tensors, and those of the CPU that are sent to the GPU, come by here."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


class _Backend:
    """What torch asks of a device's module."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        """Its random numbers are the CPU's."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        """None to set."""


@contextmanager
def pretend_gpu() -> Iterator[None]:
    """While this is open, `torch.device("pretend")` is a GPU. Once in a process: the device stays registered."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(x, device=NAME) is made on the CPU and sent
    try:
        with _Factories():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


def _run(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if torch.is_inference_mode_enabled():  # there, whole operations come as they are, not in their parts
        with torch.inference_mode(False), torch.no_grad():
            if operation._can_decompose():
                with _Factories():
                    return operation.decompose(*args, **kwargs)
            return _run(operation, args, kwargs)
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    ours = [x for x in tensors if isinstance(x, PretendTensor)]
    theirs = [x for x in tensors if not isinstance(x, PretendTensor)]
    device = kwargs.get("device")
    here = bool(ours) if device is None else torch.device(device).type == NAME
    if operation is aten.copy_.default:
        here = isinstance(args[0], PretendTensor)
    _check(operation, args, kwargs, ours, theirs, here)
    plain = {key: "cpu" if key == "device" and here else value for key, value in kwargs.items() if key != "pin_memory"}
    found = operation(*tree_map(_inner, args), **tree_map(_inner, plain))
    if not here or operation in _READ:
        return args[0] if operation is aten.copy_.default else found
    return return_and_correct_aliasing(operation, args, kwargs, tree_map(_wrapped, found))


def _check(operation: Any, args: Any, kwargs: dict[str, Any], ours: Any, theirs: Any, here: bool) -> None:
    """Refuse two devices in one operation, and note it where the GPU has to be waited for."""
    if operation in _COPIES:
        crosses = bool(ours) != here if operation is aten._to_copy.default else bool(ours and theirs)
        if crosses and not (kwargs.get("non_blocking") or args[2:] == (True,)):
            _note(operation)
        return
    if operation in _BY_INDICES and isinstance(args[0], PretendTensor):
        # Indices may be on the CPU; a mask is first made into indices.
        if theirs or any(x.dtype == torch.bool for x in tree_leaves(args[1]) if isinstance(x, Tensor)):
            _note(operation)
        return
    if ours and any(x.dim() for x in theirs):  # a single number may be on the CPU
        raise RuntimeError(f"Expected all tensors to be on the same device, but {operation} has some on the CPU")
    if ours and (operation in _READ or (operation in _SIZED_BY_VALUES and kwargs.get("output_size") is None)):
        _note(operation)


def _note(operation: Any) -> None:
    frame, places = sys._getframe(), []
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("gemma4vec."):
            places.append(f"{module.removeprefix('gemma4vec.')}.{frame.f_code.co_qualname}")
        frame = frame.f_back  # type: ignore[assignment]
    waits[str(operation), tuple(places)] += 1


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, PretendTensor) else x


def _wrapped(x: Any) -> Any:
    return PretendTensor(x) if isinstance(x, Tensor) else x
