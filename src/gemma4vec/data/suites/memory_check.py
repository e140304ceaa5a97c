"""Do texts fit into memory? Asked of their files, before they are read."""

from collections.abc import Sequence
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.machine.describe import memory_bytes

IN_MEMORY = 2.5  # bytes of memory for each of a corpus file: 1.3 to 3 as measured, more where texts are short
PACKED = 4  # a compressed file holds about so many times its size


def check_fits(files: Sequence[Path]) -> None:
    """Refuse a corpus whose texts alone would fill the memory that is free.

    Raises:
        InputError: says how large it is and how much is free.
    """
    size = sum(file.stat().st_size * (1 if file.suffix in (".jsonl", ".csv", ".json") else PACKED) for file in files)
    free = memory_bytes()[1]
    if size * IN_MEMORY > free:
        raise InputError(
            f"{files[0]}: a corpus of {size / 1e9:.1f} GB takes about {size * IN_MEMORY / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free; cut it down to a part, or use a machine with more"
        )
