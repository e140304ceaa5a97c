"""The files of a person's folder, in an order that is the same everywhere, and what is left out, counted by reason."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from gemma4vec.data.pycode.walk import BUILD_FOLDERS, OTHER_FOLDERS
from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text

FileKind = Literal["markdown", "html", "rst", "text", "notebook", "pdf", "python", "code"]

_CODE = (
    ".c .cc .cpp .cs .cxx .dart .el .ex .exs .f90 .go .h .hpp .hs .java .jl .js .jsx .kt .lua .m .ml .php .pl .ps1 "
    ".r .rb .rs .scala .sh .sql .swift .ts .tsx .vue .zig"
)
KINDS: dict[FileKind, tuple[str, ...]] = {
    "markdown": (".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"),
    "html": (".html", ".htm", ".xhtml"),
    "rst": (".rst", ".rest"),
    "text": (".txt", ".text"),
    "notebook": (".ipynb",),
    "pdf": (".pdf",),
    "python": (".py", ".pyi"),
    "code": tuple(_CODE.split()),
}
KIND_OF = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes}
# Files that people write without a suffix.
TEXT_NAMES = frozenset({"readme", "news", "changes", "changelog", "history", "install", "notes", "todo", "faq"})
SKIPPED = OTHER_FOLDERS | BUILD_FOLDERS | {"_build", "_static", "_sources"}
LARGEST = 32 * 2**20  # bytes; larger files are data or scans, and take minutes to read
SHOWN = 1


class DocumentFile(NamedTuple):
    """A file that can be read: its path below the folder, its kind, bytes, and nanoseconds since the epoch."""

    path: str
    kind: FileKind
    size: int
    modified: int


@dataclass
class LeftOut:
    """What is not read, by reason.

    Attributes:
        reasons: reason -> paths, in the order of the walk.
    """

    reasons: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: str) -> None:
        """Count a file or folder."""
        self.reasons.setdefault(reason, []).append(path)

    def lines(self) -> list[str]:
        """One line for each reason: `3 left out: cannot be read (notes/a.md, ...)`."""
        found = []
        for reason, paths in sorted(self.reasons.items()):
            shown = ", ".join(ascii(path)[1:-1] for path in paths[:SHOWN]) + (", ..." if len(paths) > SHOWN else "")
            found.append(f"{len(paths):,} left out: {reason} ({shown})")
        return found

    def counts(self) -> dict[str, int]:
        """Reason -> number."""
        return {reason: len(paths) for reason, paths in sorted(self.reasons.items())}


def find_document_files(folder: Path, left_out: LeftOut) -> list[DocumentFile]:
    """Find the readable kinds of files below a folder, by path.

    Hidden folders, virtual environments and builds are skipped. No link is followed: one within the folder leads to
    what is read anyway, perhaps in a loop, and one out of it may lead to the whole disk.

    Args:
        folder: the folder.
        left_out: gets what cannot be read, is too large, is empty, or is of another kind.

    Raises:
        InputError: the folder does not exist or cannot be listed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a folder of documents")
    root = folder.resolve()
    if not os.access(root, os.R_OK | os.X_OK):
        raise InputError(f"{folder}: cannot be listed (permission denied); change its permissions")

    def unlisted(error: OSError) -> None:
        left_out.add("folder that cannot be listed", Path(str(error.filename)).relative_to(root).as_posix())

    found: list[DocumentFile] = []
    for here, folders, files in os.walk(root, onerror=unlisted):
        for name in sorted(folders):
            path = Path(here) / name
            if path.is_symlink():
                left_out.add(_why_not_followed(path, root), path.relative_to(root).as_posix())
        folders[:] = sorted(
            name for name in folders if not (Path(here) / name).is_symlink() and not _is_skipped(Path(here) / name)
        )
        for name in sorted(files):
            file = _file(Path(here) / name, root, left_out)
            if file is not None:
                found.append(file)
    return sorted(found)


def _why_not_followed(path: Path, root: Path) -> str:
    """A link within the folder leads to what is read anyway, one out of it may lead anywhere."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, in Python 3.11 and 3.12
        return "link that leads nowhere"
    return "link to what is read already" if target.is_relative_to(root) else "link that leads out of the folder"


def _is_skipped(folder: Path) -> bool:
    name = folder.name
    if name.startswith(".") or name in SKIPPED or name.endswith(".egg-info"):
        return True
    return (folder / "pyvenv.cfg").exists()


def _file(path: Path, root: Path, left_out: LeftOut) -> DocumentFile | None:
    """The file, or None for one that is hidden or left out."""
    if path.name.startswith("."):
        return None
    where = path.relative_to(root).as_posix()
    if path.is_symlink():
        left_out.add(_why_not_followed(path, root), where)
        return None
    kind = kind_of_name(path.name)
    if kind is None:
        left_out.add("of a kind that is not read", where)
        return None
    try:
        status = path.stat()
    except OSError:
        left_out.add("cannot be read", where)
        return None
    if not stat.S_ISREG(status.st_mode):
        left_out.add("not a file", where)
    elif status.st_size > LARGEST:
        left_out.add(f"larger than {LARGEST // 2**20} MiB", where)
    elif status.st_size == 0:
        left_out.add("empty", where)
    else:
        return DocumentFile(where, kind, status.st_size, status.st_mtime_ns)
    return None


def kind_of_name(name: str) -> FileKind | None:
    """The kind of a file by its name; None for one that is not read."""
    path = PurePosixPath(name)
    if not path.suffix and path.name.lower() in TEXT_NAMES:
        return "text"
    return KIND_OF.get(path.suffix.lower())


def hash_document_files(files: Sequence[DocumentFile], *further: str) -> str:
    """Hash names, sizes and times of files, without reading them, and any `further` settings."""
    return sha256_text(*further, *(f"{file.path}\t{file.size}\t{file.modified}" for file in files))
