"""Compilers for torch.compile, and what is missing on this machine."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from gemma4vec.files import cache

COMPILE_CACHE = "TORCHINDUCTOR_CACHE_DIR"
# Inductor writes C++ for a CPU and asks for one program alone: $CXX, else this.
_DEFAULT = "clang++" if sys.platform == "darwin" else "g++"
# Minimum remaining work for compilation to pay off, by device. Measured on a CPU with Gemma 3 270M: compiling for
# training takes 90 s the first time and 20 s from the cache, the time of 30 or 7 steps. Compiled layers train 1.3 to
# 1.9 times as fast. The values for a GPU are estimates: it does at least ten times more work in that time.
_STEPS_WORTH_IT = {"cpu": 30, "cuda": 200}
_MINUTES_WORTH_IT = {"cpu": 1.0, "cuda": 3.0}
# Triton compiles each kernel's launcher with one of these, or $CC.
_FOR_TRITON = ("gcc", "clang")


def pays_off(device: str, *, steps: int | None, minutes: float | None, least_steps: int | None) -> bool:
    """Whether a training is long enough for compilation, as far as its budget is known.

    Args:
        device: `cpu` or `cuda`.
        steps: budget in steps, if known.
        minutes: budget in minutes, if known.
        least_steps: what a budget in minutes makes at least.
    """
    few = steps is not None and steps < _STEPS_WORTH_IT[device]
    short = minutes is not None and minutes < _MINUTES_WORTH_IT[device]
    return not few and not (short and (least_steps or 0) < _STEPS_WORTH_IT[device])


def compile_cache(torchs_own: str | None) -> Path:
    """The folder of compiled kernels: the one that somebody set, or ours.

    Args:
        torchs_own: what torch's compiler, where it is imported, writes into the variable by itself: nobody's setting.
    """
    named = os.environ.get(COMPILE_CACHE)
    return Path(named) if named and named != torchs_own else cache() / "inductor"


def find_cxx_compiler() -> str | None:
    """The C++ compiler that torch will use, with its path; None: it will find none."""
    return shutil.which(os.environ.get("CXX") or _DEFAULT)


def find_compiler(device: str) -> str | None:
    """The compiler that torch will use for a device, with its path; None: it will find none."""
    if device != "cuda":
        return find_cxx_compiler()
    named = os.environ.get("CC")
    return next(filter(None, map(shutil.which, [named] if named else _FOR_TRITON)), None)


def find_other_cxx_compiler() -> str | None:
    """A C++ compiler that torch does not ask for here, but would use if CXX named it."""
    return None if find_cxx_compiler() else next(filter(shutil.which, ("g++", "clang++", "c++")), None)


def missing_for_compile(device: str = "cpu") -> str | None:
    """What torch.compile lacks on a device, in words; None: nothing that is known of.

    Where a compiler is there under another name than torch asks for, the words say how to tell torch of it.
    """
    if device == "cuda":
        if find_compiler(device) is None:
            return "there is no C compiler (CC, gcc or clang)"
    elif find_cxx_compiler() is None:
        named, other = os.environ.get("CXX"), find_other_cxx_compiler()
        wanted = f"CXX={named} is not there" if named else f"there is no C++ compiler ({_DEFAULT})"
        return f"{wanted}, but {other} is: CXX={other} uses it" if other else wanted
    if not python_header().is_file():
        return f"Python's headers are missing ({python_header()})"
    return None


def python_header() -> Path:
    """Where Python.h should be; both compilers' code includes it."""
    return Path(sysconfig.get_paths()["include"]) / "Python.h"
