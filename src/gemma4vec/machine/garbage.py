"""Python's collector of garbage, paused while what will stay is loaded."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collections() -> Iterator[None]:
    """Collect no garbage while this is open.

    Imports and a tokenizer of 262,144 tokens make millions of objects that stay. The collector walks over all of them
    again and again: a quarter of a dry run's start.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
