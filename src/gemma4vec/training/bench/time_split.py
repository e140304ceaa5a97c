"""Where the time of a training step goes: matrix products, attention, element-wise work, and the rest.

From torch's profiler over one step: the own time of each operator, on a GPU of each kernel. Operators and kernels are
classified by name. On a CPU compiled loops have no operator of their own; their time is that of the compiled region
around them, without the products that it calls.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gemma4vec.machine.device import choose_device

# The first kind that matches decides. Inductor puts the names of nearby operators into those of its element-wise and
# reducing kernels, so these come first. `bmm` occurs only where attention is two products.
KINDS = {
    "element-wise": ("triton_poi", "triton_red", "triton_per", "triton_for"),
    "data": ("memcpy htod", "memcpy dtoh"),
    "attention": ("scaled_dot_product", "flash", "fmha", "attention", "bmm", "mem_eff"),
    "matrix products": ("mm", "linear", "matmul", "gemm", "cutlass", "nvjet", "xmma", "cublas", "_JoinedProduct"),
}
PARTS = ("matrix products", "attention", "element-wise", "data", "rest")


def kind_of(name: str) -> str:
    """The part of an operator or kernel, by its name."""
    lower = name.lower()
    for kind, words in KINDS.items():
        if any(word.lower() in lower for word in words):
            return kind
    return "element-wise"


def split(work: Callable[[], float]) -> dict[str, float]:
    """Share of each of `PARTS` in the time of `work`, which returns its seconds; the shares add up to 1.

    "data" is copies to and from a GPU; "rest" is time outside operators: Python, and on a GPU the gaps between kernels.
    """
    on_gpu = choose_device().name == "cuda"
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences its log of starts and stops
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as found:
        seconds = work()
    return shares(found.key_averages(), seconds, on_gpu=on_gpu)


def shares(events: Iterable[Any], seconds: float, *, on_gpu: bool) -> dict[str, float]:
    """The split of `seconds`, from the profiler's averages.

    On a GPU only kernels and copies count. Operators have rows too, with the time of the kernels that they started, and
    so do the regions that compiled code marks.
    """
    spent = dict.fromkeys(PARTS, 0.0)
    for event in events:
        if not on_gpu:
            spent[kind_of(event.key)] += event.self_cpu_time_total / 1e6
        elif event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            spent[kind_of(event.key)] += event.self_device_time_total / 1e6
    total = max(seconds, sum(spent.values()))
    spent["rest"] = total - sum(spent.values())
    return {part: value / total for part, value in spent.items()}
