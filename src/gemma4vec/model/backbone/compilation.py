"""Decide whether to compile the decoder layers, and fall back to uncompiled ones."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch

from gemma4vec.errors import InputError
from gemma4vec.machine.compiler import COMPILE_CACHE, compile_cache, missing_for_compile, pays_off
from gemma4vec.machine.device import MIN_COMPILE_CAPABILITY, choose_device
from gemma4vec.model import upstream

if TYPE_CHECKING:
    from gemma4vec.model.backbone.backbone import Backbone

T = TypeVar("T")
# Fewest characters to encode for which compilation pays off, by device: on a CPU it takes 10 to 30 s, the time of
# 200,000 characters.
CHARACTERS_WORTH_IT = {"cpu": 400_000, "cuda": 10_000_000}


@dataclass(frozen=True)
class CompileChoice:
    """Whether to compile, and the reason."""

    on: bool
    reason: str


def choose_compile(
    wanted: Literal["auto"] | bool, *, steps: int | None, minutes: float | None, least_steps: int | None = None
) -> CompileChoice:
    """Decide whether to compile.

    Args:
        wanted: the recipe's `layout.compile`.
        steps: budget in steps, if known.
        minutes: budget in minutes, if known.
        least_steps: what a budget in minutes makes at least.

    Raises:
        InputError: `wanted` is true and there is no compiler.
    """
    if wanted is False:
        return CompileChoice(False, "the recipe says layout.compile=false")
    missing = _missing()
    if wanted is True:
        if missing:
            raise InputError(f"layout.compile=true, but {missing}; install what is missing, or use layout.compile=auto")
        return CompileChoice(True, "the recipe says layout.compile=true")
    if missing:
        return CompileChoice(False, f"{missing}: layers run uncompiled, a quarter to a half slower")
    if not pays_off(choose_device().name, steps=steps, minutes=minutes, least_steps=least_steps):
        return CompileChoice(False, "the budget is too short for compilation to pay")
    return CompileChoice(True, "compiled once, for all shapes")


def failed_to_compile(error: Exception) -> CompileChoice:
    """The choice after a failed compilation: no Python headers, a broken compiler, a layer that cannot be traced."""
    return CompileChoice(False, f"compilation failed: {' '.join(str(error).split())[:200]}")


def forget_broken_kernel(error: Exception) -> bool:
    """Delete the cached kernel that an error names as unloadable; true: compile again.

    A process that is killed while its compiler writes leaves an empty file, on which all later ones would fail.
    """
    found = re.search(r"ImportError: (\S+\.so): ", str(error))
    kept = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if found is None or not kept or not Path(found[1]).is_relative_to(Path(kept).absolute()):
        return False
    try:
        Path(found[1]).unlink()
    except OSError:  # already deleted, so compiling again was tried; or owned by somebody else
        return False
    return True


def run_compiled(
    backbone: "Backbone", work: Callable[[], T], compile_layers: "Callable[[Backbone], None] | None" = None
) -> T:
    """Compile the layers and run `work`, their first use, on them. Broken kernels in the cache are compiled again.

    Raises:
        TorchDynamoException: the layers cannot be compiled; they are uncompiled again.
    """
    while True:
        if compile_layers is None:
            backbone.compile_layers()
        else:
            compile_layers(backbone)
        try:
            return work()
        except upstream.compiler_errors() as error:
            backbone.uncompile_layers()
            if not forget_broken_kernel(error):
                backbone.compile_failed = True
                raise


def run_with_eager_fallback(backbone: "Backbone", work: Callable[[], T], on_fallback: Callable[[str], None]) -> T:
    """Run `work`; if the compiler fails in it, on a new shape, run it again on uncompiled layers.

    `on_fallback` receives the reason before the second run. Layers stay uncompiled from then on.
    """
    if not backbone.compiled:
        return work()
    try:
        return work()
    except upstream.recompile_errors() as error:
        backbone.uncompile_layers()
        backbone.compile_failed = True
        reason = failed_to_compile(error).reason
    on_fallback(reason)  # after the handler, so that memory of the failed run is free
    return work()


def use_compile_cache() -> None:
    """Store compiled kernels between runs. Call it before the first compilation; a folder set by the user stays."""
    os.environ[COMPILE_CACHE] = str(compile_cache(upstream.default_compile_cache()))
    # Kernels are half of the time: without this, each process would plan layers with custom gradients again.
    upstream.cache_custom_gradients()


def _missing() -> str | None:
    """What this machine lacks for compilation, in words; None: nothing."""
    device = choose_device().name
    if device == "cuda" and (capability := torch.cuda.get_device_capability()) < MIN_COMPILE_CAPABILITY:
        old, least = (f"{major}.{minor}" for major, minor in (capability, MIN_COMPILE_CAPABILITY))
        return f"{torch.cuda.get_device_name()} has compute capability {old}, torch.compile needs {least}"
    return missing_for_compile(device)
