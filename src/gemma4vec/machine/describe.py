"""Description of this machine: processor, usable cores and memory, GPUs."""

import math
import os
import platform
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # cgroup v1 writes a huge number for "no limit"


def describe_machine() -> dict[str, Any]:
    """A record of the machine for manifests and reports: plain values, no private names.

    Keys: `system`, `cpu`, `cores`, `memory_total_gb`, `memory_available_gb`, `torch_threads`, `gpus`.
    """
    import torch

    total, available = memory_bytes()
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_total_gb": round(total / 1e9, 1),
        "memory_available_gb": round(available / 1e9, 1),
        "torch_threads": torch.get_num_threads(),
        "gpus": list_gpus(),
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, or its architecture if the system does not name it."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        return platform.machine()
    return platform.machine()


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may keep busy: its affinity, cut by the container's quota (cgroup v2 or v1)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _cpu_quota(cgroup: Path) -> float | None:
    both = _words(cgroup / "cpu.max")  # v2: "200000 100000" or "max 100000"
    if len(both) == 2 and both[0] != "max":
        return int(both[0]) / int(both[1])
    quota, period = _words(cgroup / "cpu/cpu.cfs_quota_us"), _words(cgroup / "cpu/cpu.cfs_period_us")  # v1
    if quota and period and int(quota[0]) > 0:
        return int(quota[0]) / int(period[0])
    return None


def memory_bytes(cgroup: Path = _CGROUP) -> tuple[int, int]:
    """(total, available) memory in bytes that this process may use: the machine's, cut by the container's limit."""
    import psutil

    machine = psutil.virtual_memory()
    limit = _first_number(cgroup / "memory.max", cgroup / "memory/memory.limit_in_bytes")
    used = _first_number(cgroup / "memory.current", cgroup / "memory/memory.usage_in_bytes")
    used = max(0, (used or 0) - _droppable(cgroup))
    if limit is None or limit >= min(_UNLIMITED, machine.total):
        return machine.total, machine.available
    return limit, max(0, min(machine.available, limit - used))


def _droppable(cgroup: Path) -> int:
    """Bytes of inactive page cache: counted as used, but reclaimable."""
    for file in (cgroup / "memory.stat", cgroup / "memory/memory.stat"):
        words = _words(file)
        for name in ("total_inactive_file", "inactive_file"):
            if name in words[:-1] and (value := words[words.index(name) + 1]).isdigit():
                return int(value)
    return 0


def _first_number(*paths: Path) -> int | None:
    for path in paths:
        words = _words(path)
        if words and words[0].isdigit():
            return int(words[0])
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []


def list_gpus() -> list[dict[str, Any]]:
    """Name, memory in GB and compute capability of each CUDA device that torch can use."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            {
                "name": properties.name,
                "memory_gb": round(properties.total_memory / 1e9, 1),
                "capability": f"{properties.major}.{properties.minor}",
            }
        )
    return found
