"""Cached hashes of files. Hashing 10 GB at every start takes too long, so a hash is stored until its file changes."""

import contextlib
import logging
import time
from pathlib import Path

from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import cache, sha256_file, sha256_text, write_json
from gemma4vec.reading.json_values import load_foreign_json

logger = logging.getLogger(__name__)

# A file can change twice within one tick of the file system's clock, so hashes of very recent files are not stored.
YOUNG_SECONDS = 2.0
LARGE_BYTES = 4 * 2**30  # from here on a line says why it takes seconds


def file_hash(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes; from the cache if size, inode, mtime and ctime are unchanged.

    A cache that cannot be written costs the time of hashing again, nothing else.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        status = path.stat()
        stamp = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        note = cache() / "hashes" / f"{sha256_text(str(path.resolve()))[:24]}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = load_foreign_json(note)
            if known["stamp"] == stamp:
                return str(known["sha256"])
        if status.st_size >= LARGE_BYTES:
            logger.info(f"hashing {path}, {status.st_size / 1e9:.1f} GB, once")
        started = time.time_ns()
        digest = sha256_file(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from error
    if started - max(status.st_mtime_ns, status.st_ctime_ns) > YOUNG_SECONDS * 1e9:
        with contextlib.suppress(WorkError):
            write_json(note, {"path": str(path), "stamp": stamp, "sha256": digest})
    return digest
