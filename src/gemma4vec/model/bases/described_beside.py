"""The description of a bundled base, made by a child while the caller imports torch: both take seconds.

A child runs as `python -m gemma4vec.model.bases.described_beside BASE`. `bundled.description` waits for it, and makes
by itself what a child did not.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gemma4vec.machine.describe import usable_cores
from gemma4vec.machine.memory import paused_collections
from gemma4vec.machine.processes.child_environment import child_environment
from gemma4vec.model.bases.bundled import BUNDLED, bundled_base, description, is_described


@contextmanager
def described_beside(base: str) -> Iterator[None]:
    """While this is open, a child describes `base` if it is a bundled one that the cache lacks."""
    bundled = bundled_base(base)
    if bundled is None or usable_cores() < 2 or is_described(bundled):
        yield
        return
    child = subprocess.Popen(
        [sys.executable, "-m", "gemma4vec.model.bases.described_beside", bundled.name],
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        child.kill()  # not where it is done
        child.wait()


def main() -> None:
    """Run a child."""
    # transformers would import torch, which takes a third of the time; configs and tokenizers do without it.
    sys.modules["torch"] = None  # type: ignore[assignment]
    with paused_collections(), description(BUNDLED[sys.argv[1]]):
        pass


if __name__ == "__main__":
    main()
