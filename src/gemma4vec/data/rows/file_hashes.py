"""Hashes of files, remembered for as long as a file is untouched: hashing 10 GB again at every start takes too long."""

import contextlib
import json
import time
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.files import cache, sha256_file, sha256_text, write_json

# A file may change twice within a tick of its file system's clock; what was that young is hashed again.
YOUNG_SECONDS = 2.0


def file_hash(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, from memory where size, inode and both times are what they were.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        found = path.stat()
        stamp = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
        note = cache() / "hashes" / f"{sha256_text(str(path.resolve()))[:24]}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(note.read_text(encoding="utf-8"))
            if known["stamp"] == stamp:
                return str(known["sha256"])
        started = time.time_ns()
        made = sha256_file(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); check the path and its rights"
        ) from error
    if started - max(found.st_mtime_ns, found.st_ctime_ns) > YOUNG_SECONDS * 1e9:
        write_json(note, {"path": str(path), "stamp": stamp, "sha256": made})
    return made
