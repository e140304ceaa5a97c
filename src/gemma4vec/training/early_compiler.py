"""Ready the C++ compiler while weights are read and the first layer is traced.

The first kernel on a machine waits for a test of the CPU's vector instructions and for torch's header, which is
compiled once, into a folder below the system's temporary one. Neither depends on the model, so a process of its own
asks torch for a kernel as soon as a recipe is known to be sound: with a second core, layers find both done. Only the
disk is shared: where that process fails or is late, layers are compiled all the same, and say what is wrong.
"""

import atexit
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gemma4vec.machine.compiler import COMPILE_CACHE, compile_cache, missing_for_compile, pays_off
from gemma4vec.recipe.schema import Recipe, Stage

_KERNEL = "import torch; torch.compile(lambda x: x + 1)(torch.ones(4096))"
# A GPU's layers are compiled by Triton.
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")


def prepare_compiler(recipe: Recipe) -> "subprocess.Popen[bytes] | None":
    """Start the process if the recipe's layers will be compiled on a CPU here and nothing is there yet; None: no need.

    It ends with this one. Imports no torch.
    """
    if not any(map(_will_compile, recipe.stages)) or any(Path(device).exists() for device in _GPU_DEVICES):
        return None
    folder = compile_cache(_torchs_own())
    alone = (os.cpu_count() or 1) < 2 or os.environ.get("LOCAL_RANK", "0") != "0"
    if alone or is_ready(folder) or missing_for_compile():
        return None
    quiet = subprocess.DEVNULL
    around = {**os.environ, COMPILE_CACHE: str(folder)}
    try:
        process = subprocess.Popen([sys.executable, "-c", _KERNEL], env=around, stdin=quiet, stdout=quiet, stderr=quiet)
    except OSError:  # no more processes: layers are compiled without it
        return None
    atexit.register(process.kill)
    return process


def _torchs_own() -> str | None:
    """The folder that torch may have set by itself; None where nothing has imported it."""
    if "torch" not in sys.modules or COMPILE_CACHE not in os.environ:
        return None
    from gemma4vec.model.upstream import default_compile_cache

    return default_compile_cache()


def is_ready(folder: Path) -> bool:
    """Whether something was compiled into this folder, and torch's header is there."""
    headers = Path(tempfile.gettempdir()).glob("torchinductor_*/precompiled_headers/*.gch")
    return folder.is_dir() and any(folder.iterdir()) and any(headers)


def _will_compile(stage: Stage) -> bool:
    """As `model.backbone.compilation.choose_compile` decides, without what only a loaded model tells."""
    budget, wanted = stage.budget, stage.layout.compile
    if wanted == "auto":
        return pays_off("cpu", steps=budget.steps, minutes=budget.minutes, least_steps=budget.least_steps)
    return wanted
