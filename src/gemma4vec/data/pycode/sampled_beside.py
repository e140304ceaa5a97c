"""Samples of code that children make while the caller does something else: a dry run imports libraries for as long.

A child runs as `python -m gemma4vec.data.pycode.sampled_beside DATA FOLDER NEGATIVES` and writes the pickled sample to
stdout. Whatever stops it, the caller samples by itself.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from gemma4vec.data.pycode.sampled_rows import PyCodeSample, sample_pycode
from gemma4vec.machine.describe import usable_cores
from gemma4vec.machine.processes.child_environment import child_environment


class Wanted(NamedTuple):
    """What `sample_pycode` will be asked for: where built folders are, the code (None: the environment), negatives."""

    data: Path
    folder: Path | None
    negatives: int


class Answer(NamedTuple):
    """What `sample_pycode` returned in a child."""

    sample: PyCodeSample | None


_children: ContextVar[dict[Wanted, subprocess.Popen[bytes] | Answer] | None] = ContextVar("children", default=None)


@contextmanager
def sampled_beside(wanted: Iterable[Wanted]) -> Iterator[None]:
    """While this is open, children make samples, on the cores that the caller does not use."""
    children: dict[Wanted, subprocess.Popen[bytes] | Answer] = {}
    for one in list(dict.fromkeys(wanted))[: usable_cores() - 1]:
        words = [str(one.data), str(one.folder or ""), str(one.negatives)]
        children[one] = subprocess.Popen(
            [sys.executable, "-m", "gemma4vec.data.pycode.sampled_beside", *words],
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    token = _children.set(children)
    try:
        yield
    finally:
        _children.reset(token)
        for child in children.values():
            if not isinstance(child, Answer):  # nobody asked for it
                child.kill()
                child.communicate()


def answer_of_child(wanted: Wanted) -> Answer | None:
    """Wait for the child that makes this sample; None: there is none, or it failed."""
    children = _children.get()
    child = children.get(wanted) if children else None
    if children is None or child is None:
        return None
    if isinstance(child, Answer):
        return child
    written, _ = child.communicate()
    if child.returncode != 0:
        del children[wanted]
        return None
    answer = Answer(pickle.loads(written))
    children[wanted] = answer
    return answer


def main() -> None:
    """Run a child."""
    if hasattr(os, "nice"):
        os.nice(5)  # a sample is wanted later than what other children make
    data, folder, negatives = sys.argv[1:]
    sample = sample_pycode(Path(data), folder=Path(folder) if folder else None, negatives=int(negatives))
    sys.stdout.buffer.write(pickle.dumps(sample))


if __name__ == "__main__":
    main()
