"""Check whether a corpus fits into memory, from the size of its files, before they are read."""

from collections.abc import Sequence
from pathlib import Path

from gemma4vec.machine.memory import format_bytes, free_memory, require_memory

MEMORY_PER_BYTE = 2.5  # bytes of memory for each byte of a corpus file: 1.3 to 3 measured, most for short texts
COMPRESSION_RATIO = 4  # size of a decompressed file as a multiple of the compressed one


def check_corpus_fits(files: Sequence[Path]) -> None:
    """Refuse a corpus whose texts alone would fill the free memory.

    Raises:
        InputError: the corpus is too large; the message names its size and the free memory.
    """
    size = sum(
        file.stat().st_size * (1 if file.suffix in (".jsonl", ".csv", ".json") else COMPRESSION_RATIO) for file in files
    )
    require_memory(
        f"{files[0]}: a corpus of {format_bytes(size)}",
        size * MEMORY_PER_BYTE,
        free_memory(),
        "use a part of it, or a machine with more memory",
    )
