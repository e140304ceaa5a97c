"""Does a corpus fit into memory? Estimated from the size of its files, before they are read."""

from collections.abc import Sequence
from pathlib import Path

from gemma4vec.machine.memory import format_bytes, free_memory, require_memory

IN_MEMORY = 2.5  # bytes of memory for each byte of a corpus file: 1.3 to 3 measured, more where texts are short
PACKED = 4  # size of a decompressed file as a multiple of the compressed one


def check_corpus_fits(files: Sequence[Path]) -> None:
    """Refuse a corpus whose texts alone would fill the free memory.

    Raises:
        InputError: how large it is and how much memory is free.
    """
    size = sum(file.stat().st_size * (1 if file.suffix in (".jsonl", ".csv", ".json") else PACKED) for file in files)
    require_memory(
        f"{files[0]}: a corpus of {format_bytes(size)}",
        size * IN_MEMORY,
        free_memory(),
        "cut it down to a part, or use a machine with more",
    )
