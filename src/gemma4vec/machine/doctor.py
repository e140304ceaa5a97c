"""Checks of this machine, each with advice if something is missing."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gemma4vec import files
from gemma4vec.machine.compiler import find_compiler, find_other_cxx_compiler, missing_for_compile
from gemma4vec.machine.describe import cpu_model, list_gpus, memory_bytes, usable_cores
from gemma4vec.machine.network import is_offline_by_choice, ping_hub
from gemma4vec.machine.versions import TESTED, installed_version

State = Literal["ok", "warn", "missing"]

_GOOD_MEMORY, _LEAST_MEMORY = 8e9, 4e9
_GOOD_DISK = 3e9
_SLOW_BF16_RATIO = 1.2
_ALLOCATORS = ("tcmalloc", "jemalloc")
# Paths on Debian, on Fedora and of a local build.
_TCMALLOC = tuple(
    f"{folder}/libtcmalloc{kind}.so*"
    for kind in ("", "_minimal")
    for folder in ("usr/lib/*-linux-gnu", "usr/lib64", "usr/local/lib")
)
_CUDA_SETTINGS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
# Extra -> its distributions and what they are for.
_EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "mteb": (("mteb",), "MTEB's tasks"),
    "language": (("py3langid",), "languages of texts in data check and stats"),
    "notebook": (("pandas",), "results as data frames"),
    "export": (("onnx", "onnxruntime", "onnxscript", "xllamacpp"), "export and parity"),
    "serve": (("h11", "starlette", "uvicorn"), "the HTTP server"),
    "documents": (("beautifulsoup4", "docutils", "markdown-it-py", "pypdf"), "folders of documents"),
    "ui": (("h11", "starlette", "uvicorn"), "the window in the browser"),
    "map": (("openTSNE",), "maps by t-SNE in inspect"),
    "merge": (("mergekit", "sentence-transformers"), "more methods of soup"),
    "store": (("lancedb", "pgvector", "psycopg", "qdrant-client"), "databases for search and serve"),
    "faiss": (("faiss-cpu",), "the index pq of stores in a folder"),
}


@dataclass(frozen=True)
class Check:
    """One finding. `advice` is empty if there is nothing to do."""

    name: str
    state: State
    finding: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def run_checks() -> list[Check]:
    """Every check, in the order in which they are shown; under 5 s, most of it importing torch."""
    checks: list[Callable[[], Check]] = [
        check_python,
        check_threads,
        check_dtype,
        check_memory,
        lambda: check_disk("disk for outputs", files.home(), "GEMMA4VEC_HOME"),
        lambda: check_disk("disk for the cache", files.cache(), "GEMMA4VEC_CACHE"),
        check_gpu,
        check_compiler,
        check_allocator,
        check_hub,
        check_versions,
        check_extras,
    ]
    return [check() for check in checks]


def check_python() -> Check:
    """Which Python this is (pip refuses the package on one older than 3.11)."""
    return Check("python", "ok", f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")


def check_threads() -> Check:
    """Whether torch uses the cores that this process may use."""
    import torch

    cores, threads = usable_cores(), torch.get_num_threads()
    finding = f"{cpu_model()}: {cores} cores usable, torch computes on {threads}"
    if threads > cores:
        return Check(
            "threads", "warn", finding, f"more threads than cores slow each other down: OMP_NUM_THREADS={cores}"
        )
    if threads < cores:
        return Check("threads", "warn", finding, f"cores lie idle: OMP_NUM_THREADS={cores} (is it set lower already?)")
    return Check("threads", "ok", finding)


def check_dtype() -> Check:
    """Which float type is chosen here, with measured rates."""
    import torch

    from gemma4vec.machine.device import choose_device
    from gemma4vec.machine.dtype import choose_dtype
    from gemma4vec.machine.rates import matmul_rate, memory_bandwidth

    device = choose_device().name
    choice = choose_dtype(device)
    full, half = matmul_rate(torch.float32), matmul_rate(torch.bfloat16)
    finding = (
        f"{choice.reason}; measured on the CPU: bf16 {half:.0f}, fp32 {full:.0f} GFLOP/s, memory "
        f"{memory_bandwidth():.0f} GB/s"
    )
    if device == "cpu" and choice.dtype == torch.bfloat16 and half < _SLOW_BF16_RATIO * full:
        return Check("float type", "warn", finding, "bf16 is not faster here after all: use dtype fp32 in the recipe")
    if device == "cpu" and choice.dtype == torch.float32:
        return Check("float type", "warn", finding, "training is several times slower than with bf16 hardware")
    return Check("float type", "ok", finding)


def check_memory() -> Check:
    """Memory that this process may use."""
    total, available = memory_bytes()
    finding = f"{available / 1e9:.1f} of {total / 1e9:.1f} GB available"
    if available >= _GOOD_MEMORY:
        return Check("memory", "ok", finding)
    if available >= _LEAST_MEMORY:
        return Check(
            "memory", "warn", finding, "the 270M base trains in under 8 GB; use smaller batch.tokens if it runs out"
        )
    return Check("memory", "missing", finding, "training the 270M base needs about 4 GB at least: free some")


def check_disk(name: str, folder: Path, variable: str) -> Check:
    """Whether a folder can be written and has space."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    finding = f"{free / 1e9:.0f} GB free at {folder.absolute()}"
    if not os.access(existing, os.W_OK):
        return Check(name, "missing", f"{folder.absolute()} cannot be written", f"set {variable} to another folder")
    if free < _GOOD_DISK:
        return Check(name, "warn", finding, f"a run needs up to 3 GB: free some, or set {variable} to another folder")
    return Check(name, "ok", finding)


def check_gpu() -> Check:
    """CUDA devices that torch can use."""
    import torch

    from gemma4vec.machine.device import choose_device

    found, unused = list_gpus(), choose_device().reason
    if unused:
        return Check("gpu", "warn", unused)
    if found:
        names = ", ".join(f"{gpu['name']} ({gpu['memory_gb']} GB, {gpu['capability']})" for gpu in found)
        return Check("gpu", "ok", names)
    if torch.version.cuda is None:
        if Path("/dev/nvidia0").exists():
            return Check("gpu", "warn", "there is one, but torch is built for CPU only", "install torch with CUDA")
        return Check("gpu", "ok", "none (torch is built for CPU)")
    return Check("gpu", "ok", "none that torch can use")


def check_compiler() -> Check:
    """Whether torch.compile can work where training computes: compilers differ, both want Python's headers."""
    from gemma4vec.machine.device import choose_device

    device = choose_device().name
    found, missing = find_compiler(device), missing_for_compile(device)
    slow = "training runs a quarter to a half slower without"
    if found is None:
        program = "gcc" if device == "cuda" else "g++"
        other = None if device == "cuda" else find_other_cxx_compiler()
        install = f"install {program} (Debian: apt-get install {program})"
        advice = f"{slow}: {f'set CXX={other}' if other else install}"
        return Check("compiler", "warn", missing or "", advice)
    if missing is not None:
        finding = f"{found}, but {missing}"
        return Check("compiler", "warn", finding, f"{slow}: install them (Debian: apt-get install python3-dev)")
    return Check("compiler", "ok", f"{found}, with Python's headers: torch.compile can work")


def check_allocator() -> Check:
    """Which allocator is in use where training computes, and a setting that may help."""
    from gemma4vec.machine.device import choose_device

    return _gpu_allocator() if choose_device().name == "cuda" else _cpu_allocator()


def _cpu_allocator() -> Check:
    """Measured on two cores: tcmalloc 0 to 20% faster, jemalloc's defaults 40% slower."""
    preloaded = os.environ.get("LD_PRELOAD", "")
    used = next((name for name in _ALLOCATORS if name in preloaded), None)
    if used == "jemalloc":
        return Check(
            "allocator", "warn", "jemalloc is preloaded", "with its defaults training was 40% slower; unset LD_PRELOAD"
        )
    if used:
        return Check("allocator", "ok", f"{used} is preloaded")
    finding = "the system's"
    if platform.libc_ver()[0] == "glibc":
        finding = "glibc's malloc; training tells it to keep freed memory (mallopt)"
    found = next((file for pattern in _TCMALLOC for file in sorted(Path("/").glob(pattern))), None)
    return Check("allocator", "ok", finding, f"0 to 20% faster, by trial: LD_PRELOAD={found}" if found else "")


def _gpu_allocator() -> Check:
    """Batch shapes change from step to step, which fragments memory."""
    name = next((name for name in _CUDA_SETTINGS if os.environ.get(name)), None)
    if name:
        return Check("allocator", "ok", f"torch's for GPUs, {name}={os.environ[name]}")
    advice = f"where memory is short, gaps between blocks cost some: {_CUDA_SETTINGS[0]}=expandable_segments:True"
    return Check("allocator", "ok", "torch's for GPUs, as it comes", advice)


def check_hub(timeout_s: float = 1.0) -> Check:
    """Whether the model hub can be asked. Not needed for the bundled bases, so never an error."""
    if is_offline_by_choice():
        return Check("model hub", "ok", "not asked: HF_HUB_OFFLINE is set; bundled bases and cached models work")
    state = ping_hub(timeout_s)
    if state.reachable:
        return Check("model hub", "ok", state.reason)
    return Check(
        "model hub", "warn", state.reason, "bundled bases and cached models work; HF_HUB_OFFLINE=1 skips the asking"
    )


def check_versions() -> Check:
    """Whether the packages that decide about results have the versions that were tested together."""
    differing = []
    for name, tested in TESTED.items():
        found = installed_version(name)
        if found is None:
            return Check("versions", "missing", f"{name} is not installed", "pip install -e . (or make quickstart)")
        if found.split("+")[0] != tested:
            differing.append(f"{name} {found} (tested: {tested})")
    if differing:
        return Check(
            "versions", "warn", ", ".join(differing), "results may differ: install with --constraint constraints.txt"
        )
    return Check("versions", "ok", ", ".join(f"{name} {installed_version(name)}" for name in TESTED))


def check_extras() -> Check:
    """Which optional extras are there."""
    present, absent = [], []
    for extra, (distributions, purpose) in _EXTRAS.items():
        missing = [name for name in distributions if installed_version(name) is None]
        if not missing:
            present.append(extra)
        elif len(missing) < len(distributions):
            absent.append(f"{extra} ({purpose}; lacks {', '.join(missing)})")
        else:
            absent.append(f"{extra} ({purpose})")
    finding = f"installed: {', '.join(present) or 'none'}; not installed: {', '.join(absent) or 'none'}"
    return Check("optional extras", "ok", finding, 'to add one: pip install "gemma4vec[NAME]"' if absent else "")
