"""Atomic writes, hashes, and the folders of outputs and caches."""

import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gemma4vec.errors import WorkError

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def home() -> Path:
    """Return the folder of all outputs: `$GEMMA4VEC_HOME`, by default `./runs`."""
    return Path(os.environ.get("GEMMA4VEC_HOME") or "runs")


def cache() -> Path:
    """Return the folder of files that can be recomputed: `$GEMMA4VEC_CACHE`, by default `~/.cache/gemma4vec`."""
    configured = os.environ.get("GEMMA4VEC_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "gemma4vec"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Convert an `OSError` while writing `path` into a one-line `WorkError` that says where and what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise WorkError(
            f"could not write {path}: {reason}; free space or choose another folder with --out or GEMMA4VEC_HOME"
        ) from error


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file next to `path` for writing and rename it to `path` on success.

    A process killed at any moment leaves the old file or the new one. `mode` is "w" (UTF-8) or "wb".

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it replaces `path`.

    A process killed at any moment leaves the old folder or the new one (on systems that cannot exchange two names
    atomically, there is an instant with neither). The next call removes temporary folders of killed processes.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{_owner()}.", suffix=".part"))
        try:
            os.chmod(temporary, 0o755)
            yield temporary
            if not path.exists():
                os.replace(temporary, path)
            elif _exchange(temporary, path):
                shutil.rmtree(temporary)
            else:
                outgoing = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{_owner()}.", suffix=".old"))
                os.replace(path, outgoing / path.name)
                os.replace(temporary, path)
                shutil.rmtree(outgoing)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _owner() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically (Linux: renameat2). Return whether the system could."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    done: int = renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange)
    return done == 0


def _remove_leftovers(path: Path) -> None:
    """Remove temporary folders of `path` whose process ran on this machine and has ended."""
    prefix = f".{path.name}.{socket.gethostname()}-"
    for left in path.parent.iterdir():
        process = left.name.removeprefix(prefix).partition(".")[0]
        if left.name.startswith(prefix) and left.suffix == ".part" and process.isdigit() and not _runs(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, under another user
    return True


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically, keys in the given order."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not text.isascii() and _LONE_SURROGATE.search(text):  # as in a file name that is not UTF-8
        text = json.dumps(value, indent=2)
    with atomic_write(path) as stream:
        stream.write(text + "\n")


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder, in bytes; files that disappear meanwhile are skipped."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_text(*parts: str) -> str:
    """Hexadecimal SHA-256 of strings; `("ab", "c")` and `("a", "bc")` differ."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", errors="surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
