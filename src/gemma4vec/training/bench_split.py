"""Where the time of a training step goes: matrix products, attention, element-wise work, and what no operator covers.

By torch's profiler, over one step: the time of each operator without the operators that it calls, on a GPU of each
kernel. Operators are told apart by name. Compiled loops have no operator of their own on a CPU; their time is that of
the compiled region around them, without the products that it calls.
"""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

from gemma4vec.machine.device import choose_device

# In this order: the first that fits a name decides. `bmm` stands only where attention is two products.
KINDS = {
    "attention": ("scaled_dot_product", "flash", "fmha", "attention", "bmm", "mem_eff"),
    "matrix products": ("mm", "linear", "matmul", "gemm", "cutlass", "nvjet", "xmma", "cublas", "_JoinedProduct"),
}
PARTS = ("matrix products", "attention", "element-wise", "rest")


def kind_of(name: str) -> str:
    """The part that an operator or kernel belongs to."""
    lower = name.lower()
    for kind, words in KINDS.items():
        if any(word.lower() in lower for word in words):
            return kind
    return "element-wise"


def split(work: Callable[[], float]) -> dict[str, float]:
    """Share of each of `PARTS` in `work`, which returns the seconds that it took; they add up to 1.

    "rest" is what passed outside operators: Python, and on a GPU the gaps between kernels.
    """
    on_gpu = choose_device().name == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as found:
        seconds = work()
    spent = dict.fromkeys(PARTS, 0.0)
    for event in found.key_averages():
        micro = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        spent[kind_of(event.key)] += micro / 1e6
    total = max(seconds, sum(spent.values()))
    spent["rest"] = total - sum(spent.values())
    return {part: value / total for part, value in spent.items()}
