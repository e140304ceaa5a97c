"""Whether decoder layers are compiled, and why (not)."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch

from gemma4vec.errors import InputError
from gemma4vec.files import cache
from gemma4vec.machine.compiler import missing_for_compile
from gemma4vec.machine.device import MIN_COMPILE_CAPABILITY, choose_device

if TYPE_CHECKING:
    from gemma4vec.model.backbone.backbone import Backbone

T = TypeVar("T")
# What must be ahead for compiling to pay, by device. A CPU takes 20 s for it from the cache and 90 s the first time, to
# train Gemma 3 270M, which is 7 or 30 steps; to encode, 10 to 30 s, in which it encodes 200,000 characters; compiled it
# trains 1.3 to 1.9 times as fast (measured). A GPU does ten times and more of that in the time: there the figures are
# reckoned, not measured.
_STEPS_WORTH_IT = {"cpu": 30, "cuda": 200}
_MINUTES_WORTH_IT = {"cpu": 1.0, "cuda": 3.0}
CHARACTERS_WORTH_IT = {"cpu": 400_000, "cuda": 10_000_000}
_OWN_GRADIENTS = "autograd_cache_allow_custom_autograd_functions"


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
    missing = _missing()
    if wanted is True:
        if missing:
            raise InputError(f"layout.compile=true, but {missing}; install what is missing, or use layout.compile=auto")
        return CompileChoice(True, "the recipe says layout.compile=true")
    if missing:
        return CompileChoice(False, f"{missing}: layers run uncompiled, a quarter to a half slower")
    device = choose_device().name
    few = steps is not None and steps < _STEPS_WORTH_IT[device]
    if few or (minutes is not None and minutes < _MINUTES_WORTH_IT[device]):
        return CompileChoice(False, "the budget is too short for compilation to pay")
    return CompileChoice(True, "compiled once, for all shapes")


def failed_to_compile(error: Exception) -> CompileChoice:
    """What is chosen where the compiler gave up: no Python headers, a broken compiler, a layer that it cannot trace."""
    return CompileChoice(False, f"compilation failed: {' '.join(str(error).split())[:200]}")


def forget_broken_kernel(error: Exception) -> bool:
    """Delete the compiled kernel in the cache that an error says cannot be loaded; true: compile once more.

    A process that is killed while its compiler writes leaves an empty file, on which every later one would fail.
    """
    found = re.search(r"ImportError: (\S+\.so): ", str(error))
    kept = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if found is None or not kept or not Path(found[1]).is_relative_to(Path(kept).absolute()):
        return False
    try:
        Path(found[1]).unlink()
    except OSError:  # gone already, and then it has been tried; or not ours to delete
        return False
    return True


def compiled(
    backbone: "Backbone", work: Callable[[], T], compile_layers: "Callable[[Backbone], None] | None" = None
) -> T:
    """What `work` gives on compiled layers, which it is the first to run; broken kernels on disk are made again.

    Raises:
        TorchDynamoException: the layers cannot be compiled, and are not any more.
    """
    from torch._dynamo.exc import TorchDynamoException  # a second's import that a single query does not need

    while True:
        if compile_layers is None:
            backbone.compile_layers()
        else:
            compile_layers(backbone)
        try:
            return work()
        except TorchDynamoException as error:
            backbone.uncompile_layers()
            if not forget_broken_kernel(error):
                backbone.given_up = True
                raise


def run_with_eager_fallback(backbone: "Backbone", work: Callable[[], T], given_up: Callable[[str], None]) -> T:
    """What `work` gives; where the compiler gives up in it (on a shape that is new to it), again on uncompiled layers.

    `given_up` is told the reason before the second try; layers stay uncompiled from then on.
    """
    if not backbone.compiled:
        return work()
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    try:
        return work()
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        backbone.uncompile_layers()
        backbone.given_up = True
        reason = failed_to_compile(error).reason
    given_up(reason)  # behind the handler, so that what the failed work kept in memory is free
    return work()


def use_compile_cache() -> None:
    """Keep compiled kernels between runs. Must come before the first compilation; an own setting is respected.

    Importing torch's compiler writes its own default into the environment: a folder below /tmp, which is no setting.
    """
    from torch._functorch import config
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get("TORCHINDUCTOR_CACHE_DIR") in (None, default_cache_dir()):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache() / "inductor")
    # Kernels are a half of it: without this, layers with gradients of our own are planned anew in each process. What
    # these compute is part of the key under which a plan is kept.
    if hasattr(config, _OWN_GRADIENTS):
        setattr(config, _OWN_GRADIENTS, True)


def _missing() -> str | None:
    """What this machine lacks for it, in words."""
    device = choose_device().name
    if device == "cuda" and (capability := torch.cuda.get_device_capability()) < MIN_COMPILE_CAPABILITY:
        old, least = (f"{major}.{minor}" for major, minor in (capability, MIN_COMPILE_CAPABILITY))
        return f"{torch.cuda.get_device_name()} has compute capability {old}, torch.compile needs {least}"
    return missing_for_compile(device)
