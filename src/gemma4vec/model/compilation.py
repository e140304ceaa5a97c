"""Whether decoder layers are compiled, and why (not)."""

import os
import shutil
from dataclasses import dataclass
from typing import Literal

import torch

from gemma4vec.errors import InputError
from gemma4vec.files import cache

# Compiling costs 10 to 40 s once per machine and shape; below this many steps it does not pay.
_STEPS_WORTH_IT = 30


@dataclass(frozen=True)
class CompileChoice:
    """Whether to compile, and the reason in one sentence."""

    on: bool
    reason: str


def choose_compile(wanted: Literal["auto"] | bool, *, steps: int | None, minutes: float | None) -> CompileChoice:
    """Decide; `steps` or `minutes` is the budget as far as it is known.

    Raises:
        InputError: compilation is demanded and there is no compiler.
    """
    if wanted is False:
        return CompileChoice(False, "the recipe says layout.compile=false")
    missing = _missing_compiler()
    if wanted is True:
        if missing:
            raise InputError(f"layout.compile=true, but {missing}; install one, or use layout.compile=auto")
        return CompileChoice(True, "the recipe says layout.compile=true")
    if missing:
        return CompileChoice(False, f"{missing}: layers run uncompiled, about a quarter slower")
    if (steps is not None and steps < _STEPS_WORTH_IT) or (minutes is not None and minutes < 1):
        return CompileChoice(False, "the budget is too short for compilation to pay")
    return CompileChoice(True, "compiled once, for all shapes")


def failed_to_compile(error: Exception) -> CompileChoice:
    """What is chosen where the compiler gave up: no Python headers, a broken compiler, a layer that it cannot trace."""
    return CompileChoice(False, f"compilation failed: {' '.join(str(error).split())[:200]}")


def use_compile_cache() -> None:
    """Keep compiled kernels between runs. Must come before the first compilation; an own setting is respected."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache() / "inductor"))


def _missing_compiler() -> str | None:
    if torch.cuda.is_available():
        return None  # Triton brings its own
    named = os.environ.get("CXX")
    if named and shutil.which(named):
        return None
    return None if shutil.which("g++") or shutil.which("clang++") else "there is no C++ compiler"
