"""What a library raises for a damaged model folder, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gemma4vec.errors import Gemma4VecError, InputError

LONGEST_REASON = 200  # characters


@contextmanager
def base_errors(path: str | Path, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Name the folder in whatever is raised while a base is read: its files are others' and may hold anything.

    Libraries raise dozens of types for odd settings and damaged weights. Errors of ours, a lack of memory and
    the types `passing` pass.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        yield
    except (Gemma4VecError, MemoryError):
        raise
    except Exception as error:  # any type that transformers, safetensors, tokenizers or torch raise
        # The other one is torch's, which is not imported for its name.
        if isinstance(error, passing) or type(error).__name__ == "OutOfMemoryError":
            raise
        reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
        raise InputError(
            f"model.base: {path} cannot be loaded ({reason}); check its files, or download it again"
        ) from error
