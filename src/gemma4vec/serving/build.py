"""Embedding documents into an index, so that a killed process loses at most one chunk.

The index grows in `.NAME.part` beside its place. `vectors.npy` there gets its final header first and then one chunk of
rows after another, so the last chunk completes the file and a rename puts the folder in place.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import disk_errors
from gemma4vec.model.prompts import Document
from gemma4vec.serving.documents import DocumentStore, IndexedDocument, corpus_hash, write_documents
from gemma4vec.serving.storage import VECTORS, IndexMeta, check_unit_rows, read_index, unit_rows, vectors_header


class DocumentEmbedder(Protocol):
    """What an index needs of `model.embedder.Embedder`."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def encode_document(self, texts: list[str | Document], /) -> NDArray[np.float32]: ...


def build_index(
    folder: Path,
    documents: Sequence[IndexedDocument],
    embedder: DocumentEmbedder,
    *,
    source: str | None = None,
    chunk: int = 512,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda message: None,
) -> None:
    """Embed `documents` into an index at `folder`; go on where a killed build of the same index stopped.

    An index that is there already and is the same (model and documents) is left alone; another one is replaced once
    the new one is complete. `progress(done, total)` is called first with what was there already and then after each
    `chunk` documents; `say` gets one line about what is used again or thrown away.

    Raises:
        InputError: another process builds this index now.
        WorkError: a vector is not finite or of unit length, or the disk is full.
    """
    from filelock import FileLock, Timeout

    meta = IndexMeta(
        embedder.name, embedder.fingerprint, embedder.dimension, len(documents), corpus_hash(documents), source
    )
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(f"another process is building {folder}; wait for it or stop it") from error
    try:
        if _is_same(folder, meta, say):
            return
        part = folder.parent / f".{folder.name}.part"
        with disk_errors(part):
            done = _prepare_part(part, meta, documents, chunk, say)
        _append_vectors(part / VECTORS, documents, done, embedder, chunk, progress)
        with disk_errors(folder):
            _put_in_place(part, folder)
    finally:
        lock.release()


def _is_same(folder: Path, meta: IndexMeta, say: Callable[[str], None]) -> bool:
    """Whether the index at `folder` is what would be built."""
    if not folder.exists():
        return False
    try:
        found, _, _ = read_index(folder)
    except InputError as error:
        say(f"building the search index again: {error}")
        return False
    if (found.fingerprint, found.corpus) == (meta.fingerprint, meta.corpus):
        if found.source != meta.source:
            meta.write(folder)
        return True
    why = "the documents have changed" if found.fingerprint == meta.fingerprint else "it is of another model"
    say(f"replacing the search index {folder}: {why}")
    return False


def _prepare_part(
    part: Path, meta: IndexMeta, documents: Sequence[IndexedDocument], chunk: int, say: Callable[[str], None]
) -> int:
    """Make the unfinished folder, or keep what is good in it; returns the number of documents that are embedded."""
    if part.exists():
        done = _rows_done(part, meta, chunk)
        if done is not None:
            say(f"going on after {done:,} of {meta.count:,} documents that an earlier call embedded")
            return done
        say(f"throwing away the unfinished {part}: it is damaged, or of another model or other documents")
        shutil.rmtree(part)
    part.mkdir()
    write_documents(part, documents)
    (part / VECTORS).write_bytes(vectors_header(meta))
    # The description comes last: a folder that has one has the rest.
    meta.write(part)
    return 0


def _rows_done(part: Path, meta: IndexMeta, chunk: int) -> int | None:
    """How many rows can be used again, in whole chunks; None where the folder is of another build or unreadable.

    Whole chunks, since vectors in bf16 depend on their batch: so a build that was interrupted gives the same bytes.
    """
    try:
        found = IndexMeta.read(part)
        if (found.fingerprint, found.corpus, found.dimension) != (meta.fingerprint, meta.corpus, meta.dimension):
            return None
        DocumentStore(part)
        with (part / VECTORS).open("r+b") as stream:
            header = vectors_header(meta)
            if stream.read(len(header)) != header:
                return None
            data = stream.read()
            row_bytes = 4 * meta.dimension
            whole = len(data) // row_bytes
            rows_MD = np.frombuffer(data, dtype="<f4", count=whole * meta.dimension).reshape(whole, meta.dimension)
            bad = np.flatnonzero(~unit_rows(rows_MD))
            good = int(bad[0]) if len(bad) else len(rows_MD)
            done = meta.count if good >= meta.count else good // chunk * chunk
            stream.truncate(len(header) + done * row_bytes)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return done


def _append_vectors(
    path: Path,
    documents: Sequence[IndexedDocument],
    done: int,
    embedder: DocumentEmbedder,
    chunk: int,
    progress: Callable[[int, int], None],
) -> None:
    """Embed what is missing and append it, each chunk on the disk before the next starts."""
    progress(done, len(documents))
    for start in range(done, len(documents), chunk):
        batch = documents[start : start + chunk]
        vectors_MD = np.asarray(embedder.encode_document([document.as_document() for document in batch]), "<f4")
        if vectors_MD.shape != (len(batch), embedder.dimension):
            raise WorkError(
                f"the model {embedder.name} gave vectors of shape {list(vectors_MD.shape)} for {len(batch)} documents, "
                f"not of its dimension {embedder.dimension}; check it with `gemma4vec doctor`"
            )
        check_unit_rows(vectors_MD, batch)
        with disk_errors(path), path.open("ab") as stream:
            stream.write(vectors_MD.tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        progress(start + len(batch), len(documents))


def _put_in_place(part: Path, folder: Path) -> None:
    """Rename the finished folder over the old one."""
    outgoing = folder.parent / f".{folder.name}.old"
    shutil.rmtree(outgoing, ignore_errors=True)
    if folder.exists():
        os.replace(folder, outgoing)
    os.replace(part, folder)
    shutil.rmtree(outgoing, ignore_errors=True)
