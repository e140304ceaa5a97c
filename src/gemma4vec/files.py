"""Atomic writes, hashes, and the folders of outputs and caches."""

import contextlib
import ctypes
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
import tokenize
import zlib
from collections.abc import Iterable, Iterator
from functools import cache as once
from pathlib import Path
from typing import IO, Any

from gemma4vec.errors import InputError, WorkError

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_SHOWN = 40  # characters of a name in its temporary name, which also holds the host's name of up to 64


# What numpy raises for a damaged .npy file: it reads the header as Python.
NPY_ERRORS = (ValueError, TypeError, EOFError, IndexError, SyntaxError, tokenize.TokenError, MemoryError)


class DiskError(WorkError):
    """A file or folder cannot be written."""


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def home() -> Path:
    """Return the folder of all outputs: `$GEMMA4VEC_HOME`, by default `./runs`."""
    return Path(os.environ.get("GEMMA4VEC_HOME") or "runs")


def cache() -> Path:
    """Return the folder of files that can be recomputed: `$GEMMA4VEC_CACHE`, by default `~/.cache/gemma4vec`.

    A user without a home folder (a container with a random user id) has one below the system's temporary folder.

    Raises:
        InputError: that folder belongs to somebody else.
    """
    configured = os.environ.get("GEMMA4VEC_CACHE")
    if configured:
        return Path(configured)
    try:
        return Path.home() / ".cache" / "gemma4vec"
    except RuntimeError:
        return _temporary_cache()


@once
def _temporary_cache() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"gemma4vec-cache-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"no home folder, and {folder} cannot be made ({reason}); set GEMMA4VEC_CACHE") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & 0o022:
        raise InputError(f"no home folder, and {folder} is open to other users; set GEMMA4VEC_CACHE to a folder")
    logger.info(f"no home folder: cached files go to {folder}; set GEMMA4VEC_CACHE to keep them")
    return folder


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Convert an `OSError` while writing `path` into a one-line `DiskError` that says where and what to do."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"could not write {path}: {_reason(error)}; {_way_out(path, error)}") from error


def _reason(error: OSError) -> str:
    if error.errno in _FULL:
        return "no space left on the disk" if error.errno == errno.ENOSPC else "the disk quota is used up"
    if error.errno in _READ_ONLY:
        return f"the folder is read-only ({error.strerror or error})"
    return error.strerror or str(error)


def _way_out(path: Path, error: OSError) -> str:
    below_cache = str(path.absolute()).startswith(str(cache().absolute()))
    folder = (
        "set GEMMA4VEC_CACHE to another folder" if below_cache else "choose another folder with --out or GEMMA4VEC_HOME"
    )
    return folder if error.errno in (*_READ_ONLY, errno.ENOTDIR, errno.EEXIST) else f"free space or {folder}"


def check_writable(folder: Path, needed: int = 0) -> None:
    """Find a full disk or a read-only folder before the work whose result goes there; makes no folder.

    Args:
        folder: where files will be written; it need not exist.
        needed: bytes that will be written.

    Raises:
        DiskError: nothing can be written there, or less than `needed` is free.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with disk_errors(folder):
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{place} is a file")
        with tempfile.TemporaryFile(dir=place) as stream:
            stream.write(bytes(4096))
            stream.flush()
        free = shutil.disk_usage(place).free
    if free < needed:
        raise DiskError(
            f"{folder}: {needed / 1e9:.1f} GB will be written and {free / 1e9:.1f} GB are free; "
            f"{_way_out(folder, OSError(errno.ENOSPC, ''))}"
        )


def refuse_overwriting(outputs: Iterable[Path], inputs: Iterable[str | Path | None]) -> None:
    """Refuse work that would replace what it reads: an input itself, or a file in a folder that is one.

    Raises:
        InputError: it names the file.
    """
    read = [Path(one).expanduser().resolve() for one in inputs if one is not None]
    for out in outputs:
        place = out.expanduser().resolve()
        for one in read:
            same = place.exists() and one.exists() and place.samefile(one)
            if same or (place.exists() and one.is_dir() and place.is_relative_to(one)):
                raise InputError(f"{out} is read by this command and would be replaced; write to another file")


@contextlib.contextmanager
def optional_file(what: str) -> Iterator[None]:
    """Do without a cached file that cannot be written: one line in the log for each `what`."""
    try:
        yield
    except DiskError as error:
        _warn_once(what, str(error))


@once
def _warn_once(what: str, reason: str) -> None:
    logger.warning(f"{what} not cached: {reason}")


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file next to `path` for writing and rename it to `path` on success.

    A process killed at any moment leaves the old file or the new one, and so does a power failure: both the file and
    its name are flushed. What killed processes left in the folder is removed. `mode` is "w" (UTF-8) or "wb".

    Raises:
        DiskError: the disk is full or the folder cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(path.parent.absolute())
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=".part")
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
        _flush(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it replaces `path`.

    A process killed at any moment leaves the old folder or the new one (on systems that cannot exchange two names
    atomically, there is an instant with neither). Files are flushed before the folder is renamed. What killed processes
    left next to `path` is removed.

    Raises:
        DiskError: the disk is full or the folder cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".part"))
        try:
            os.chmod(temporary, 0o755)
            yield temporary
            flush(temporary)
            if not path.exists():
                os.replace(temporary, path)
            elif _exchange(temporary, path):
                shutil.rmtree(temporary)
            else:
                outgoing = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".old"))
                os.replace(path, outgoing / path.name)
                os.replace(temporary, path)
                shutil.rmtree(outgoing)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _flush(path.parent)


@contextlib.contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """Yield a folder below the system's temporary folder, which is removed at the end; `what` is part of its name.

    Those of killed processes are removed first.

    Raises:
        DiskError: it cannot be made.
    """
    parent = Path(tempfile.gettempdir())
    remove_leftovers(parent)
    with disk_errors(parent):
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=_prefix(Path(f"gemma4vec-{what}")), suffix=".part"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prefix(path: Path) -> str:
    """Start of a temporary name: it names the process, so that others know when it is dead."""
    return f".{path.name[:_SHOWN]}.{machine_name()}-{os.getpid()}."


@once
def machine_name() -> str:
    """Where numbers of processes are unique: a host, and on Linux one of its namespaces, such as a container's."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()}-{os.stat('/proc/self/ns/pid').st_ino}"
    return socket.gethostname()


def flush(folder: Path, *, inside: bool = True) -> None:
    """Write a folder's names, and with `inside` all files below it, to the disk; call it before a rename.

    Raises:
        OSError: the disk is full or fails.
    """
    for path in [*(folder.rglob("*") if inside else ()), folder]:
        if not path.is_symlink():
            _flush(path)


def _flush(path: Path) -> None:
    """Write a file or a folder's names to the disk. Some file systems cannot flush a folder, and need not."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # what cannot be opened cannot be flushed; it is renamed all the same
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (errno.EIO, *_FULL):
            raise
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically (Linux: renameat2). Return whether the system could."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    done: int = renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange)
    return done == 0


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders whose process ran on this machine and has ended.

    Where such a process died between two renames, the old folder gets its name back.
    """
    left = re.compile(rf"\..*\.{re.escape(machine_name())}-(\d+)\.[^.]*\.(part|old)")
    for name in os.listdir(folder):
        found = left.fullmatch(name)
        if found is None or is_running(int(found[1])):
            continue
        path = folder / name
        if path.is_symlink() or not path.is_dir():
            with contextlib.suppress(OSError):  # another process removed it, or it is another user's
                path.unlink()
            continue
        if found[2] == "old":
            for inside in path.iterdir():
                if not (folder / inside.name).exists():
                    os.replace(inside, folder / inside.name)
        shutil.rmtree(path, ignore_errors=True)


@once
def _remove_leftovers_once(folder: Path) -> None:
    """A process that writes many files looks once."""
    remove_leftovers(folder)


def is_running(process: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # it runs, under another user; or it is no process's number
    with contextlib.suppress(OSError, IndexError):  # Linux: a killed process that nobody has waited for is dead
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
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


def crc32_file(path: Path) -> str:
    """CRC-32 of a file's bytes, 8 hexadecimal digits: it finds damage, in less time than a hash."""
    value = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


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
