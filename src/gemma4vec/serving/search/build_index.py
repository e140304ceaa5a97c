"""Embedding documents into an index. A killed build loses at most one chunk.

The index grows in `.NAME.part` next to its final folder. `vectors.npy` starts with its final header, and each chunk
appends rows, so the last chunk completes the file. A rename then puts the folder in place.
"""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import check_writable, disk_errors, flush
from gemma4vec.retrieval.unit_rows import find_unit_rows
from gemma4vec.serving.search.documents import DocumentStore, IndexedDocument, corpus_hash, write_documents
from gemma4vec.serving.search.known_vectors import KnownVectors, embedder_inputs
from gemma4vec.serving.search.storage import (
    VECTORS,
    IndexMeta,
    check_unit_rows,
    make_vectors_header,
    read_index,
)
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)


def build_index(
    folder: Path,
    documents: Sequence[IndexedDocument],
    embedder: TextEmbedder,
    *,
    source: str | None = None,
    chunk: int = 512,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Embed `documents` into an index at `folder`, or continue a killed build of the same index.

    An existing index of the same model and documents is not changed. Any other is replaced when the new one is
    complete. `progress(done, total)` counts documents: the first call reports those of a killed build, then one call
    follows each `chunk`. The log says which earlier work is reused or discarded.

    Raises:
        InputError: another process is building this index.
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
        if _is_current(folder, meta):
            return
        part = folder.parent / f".{folder.name}.part"
        check_writable(folder, 4 * len(documents) * embedder.dimension)
        known = KnownVectors()
        _load_known_vectors(known, folder, meta)
        with disk_errors(part):
            done = _prepare_part(part, meta, documents, chunk, known)
        if known and not done:
            logger.info("vectors of unchanged documents are reused")
        _append_vectors(part / VECTORS, documents, done, embedder, chunk, known, progress)
        with disk_errors(folder):
            _put_in_place(part, folder)
    finally:
        lock.release()


def _is_current(folder: Path, meta: IndexMeta) -> bool:
    """Whether the index at `folder` is of the same model and documents."""
    if not folder.exists():
        return False
    try:
        found, _, _ = read_index(folder)
    except InputError as error:
        logger.info(f"rebuilding the search index: {error}")
        return False
    if (found.fingerprint, found.corpus) == (meta.fingerprint, meta.corpus):
        if found.source != meta.source:
            meta.write(folder)
        return True
    why = "the documents have changed" if found.fingerprint == meta.fingerprint else "another model built it"
    logger.info(f"replacing the search index {folder}: {why}")
    return False


def _load_known_vectors(known: KnownVectors, folder: Path, meta: IndexMeta) -> None:
    """Add the vectors of an existing index of the same model to `known`."""
    try:
        found, vectors_MD, documents = read_index(folder)
        if (found.fingerprint, found.dimension) == (meta.fingerprint, meta.dimension):
            known.add(documents, np.array(vectors_MD))
    except (InputError, ValueError, TypeError):
        return  # an unreadable index has no vectors to reuse; the build starts from nothing


def _prepare_part(
    part: Path,
    meta: IndexMeta,
    documents: Sequence[IndexedDocument],
    chunk: int,
    known: KnownVectors,
) -> int:
    """Create the unfinished folder or keep its valid rows; return the number of embedded documents."""
    if part.exists():
        unfinished = _read_unfinished(part, meta)
        if unfinished is not None:
            found, vectors_MD, older = unfinished
            if found.corpus == meta.corpus:
                done = _keep_whole_chunks(part / VECTORS, meta, len(vectors_MD), chunk)
                logger.info(f"continuing after {done:,} of {meta.count:,} documents that an earlier build embedded")
                return done
            known.add(older, vectors_MD)
        logger.info(f"restarting {part.name}: it is damaged, or belongs to another model or other documents")
        shutil.rmtree(part)
    part.mkdir()
    write_documents(part, documents)
    (part / VECTORS).write_bytes(make_vectors_header(meta))
    # meta.json comes last, so a folder with it is complete.
    meta.write(part)
    return 0


def _read_unfinished(
    part: Path, meta: IndexMeta
) -> tuple[IndexMeta, NDArray[np.float32], Sequence[IndexedDocument]] | None:
    """Read description, valid rows and documents of an unfinished folder; None if damaged or of another model."""
    try:
        found = IndexMeta.read(part)
        if (found.fingerprint, found.dimension) != (meta.fingerprint, meta.dimension):
            return None
        older = DocumentStore(part)
        header, data = make_vectors_header(found), (part / VECTORS).read_bytes()
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if not data.startswith(header):
        return None
    rows = (len(data) - len(header)) // (4 * meta.dimension)
    vectors_MD = np.frombuffer(data, "<f4", rows * meta.dimension, len(header)).reshape(rows, meta.dimension)
    bad = np.flatnonzero(~find_unit_rows(vectors_MD))
    return found, vectors_MD[: min(int(bad[0]) if len(bad) else rows, found.count)], older


def _keep_whole_chunks(path: Path, meta: IndexMeta, good: int, chunk: int) -> int:
    """Cut the vectors to whole chunks and return the number of rows left.

    bf16 vectors depend on their batch, so a continued build equals an uninterrupted one only at chunk boundaries.
    """
    done = meta.count if good == meta.count else good // chunk * chunk
    os.truncate(path, len(make_vectors_header(meta)) + done * 4 * meta.dimension)
    return done


def _append_vectors(
    path: Path,
    documents: Sequence[IndexedDocument],
    done: int,
    embedder: TextEmbedder,
    chunk: int,
    known: KnownVectors,
    progress: Callable[[int, int], None],
) -> None:
    """Embed and append the missing vectors. Each chunk is on disk before the next one starts."""
    progress(done, len(documents))
    for start in range(done, len(documents), chunk):
        batch = documents[start : start + chunk]
        vectors_MD, missing = known.find(batch, embedder.dimension)
        if missing:
            vectors_MD[missing] = _embed(embedder, embedder_inputs(batch, missing))
        check_unit_rows(vectors_MD, batch)
        with disk_errors(path), path.open("ab") as stream:
            stream.write(vectors_MD.tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        progress(start + len(batch), len(documents))


def _embed(embedder: TextEmbedder, texts: list[str | Document]) -> NDArray[np.float32]:
    """Embed texts and return their vectors [M, D].

    Raises:
        WorkError: the model returned another shape.
    """
    vectors_MD = np.asarray(embedder.encode_document(texts), "<f4")
    if vectors_MD.shape != (len(texts), embedder.dimension):
        raise WorkError(
            f"the model {embedder.name} returned vectors of shape {list(vectors_MD.shape)} for {len(texts)} documents, "
            f"but its dimension is {embedder.dimension}; check it with `gemma4vec doctor`"
        )
    return vectors_MD


def _put_in_place(part: Path, folder: Path) -> None:
    """Replace the old folder with the finished one."""
    outgoing = folder.parent / f".{folder.name}.old"
    shutil.rmtree(outgoing, ignore_errors=True)
    if folder.exists():
        os.replace(folder, outgoing)
    flush(part)
    os.replace(part, folder)
    flush(folder.parent, inside=False)
    shutil.rmtree(outgoing, ignore_errors=True)
