"""Where the time of a training step goes: matrix products, attention, element-wise work, and what no operator covers.

By torch's profiler, over one step: the time of each operator without the operators that it calls, on a GPU of each
kernel. Both are told apart by name. Compiled loops have no operator of their own on a CPU; their time is that of the
compiled region around them, without the products that it calls.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gemma4vec.machine.device import choose_device

# In this order: the first that fits a name decides. Inductor puts the names of operators nearby into those of its
# element-wise and reducing kernels, so these come before all. `bmm` stands only where attention is two products.
KINDS = {
    "element-wise": ("triton_poi", "triton_red", "triton_per", "triton_for"),
    "data": ("memcpy htod", "memcpy dtoh"),
    "attention": ("scaled_dot_product", "flash", "fmha", "attention", "bmm", "mem_eff"),
    "matrix products": ("mm", "linear", "matmul", "gemm", "cutlass", "nvjet", "xmma", "cublas", "_JoinedProduct"),
}
PARTS = ("matrix products", "attention", "element-wise", "data", "rest")


def kind_of(name: str) -> str:
    """The part that an operator or kernel belongs to."""
    lower = name.lower()
    for kind, words in KINDS.items():
        if any(word.lower() in lower for word in words):
            return kind
    return "element-wise"


def split(work: Callable[[], float]) -> dict[str, float]:
    """Share of each of `PARTS` in `work`, which returns the seconds that it took; they add up to 1.

    "data" is what is copied to and from a GPU; "rest" is what passed outside operators: Python, and on a GPU the gaps
    between kernels.
    """
    on_gpu = choose_device().name == "cuda"
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it writes of its starts and stops
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as found:
        seconds = work()
    return shares(found.key_averages(), seconds, on_gpu=on_gpu)


def shares(events: Iterable[Any], seconds: float, *, on_gpu: bool) -> dict[str, float]:
    """The split of so many seconds, from the profiler's averages.

    On a GPU only kernels and copies count: an operator has a row too, with the time of the kernels that it started, and
    so have the regions that compiled code marks.
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
