"""Embedding documents into an index, so that a killed process loses at most one chunk.

The index grows in `.NAME.part` beside its place. `vectors.npy` there gets its final header first and then one chunk of
rows after another, so the last chunk completes the file and a rename puts the folder in place.
"""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import disk_errors
from gemma4vec.serving.search.documents import DocumentStore, IndexedDocument, corpus_hash, write_documents
from gemma4vec.serving.search.known_vectors import KnownVectors, texts_of
from gemma4vec.serving.search.storage import VECTORS, IndexMeta, check_unit_rows, read_index, unit_rows, vectors_header
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
    """Embed `documents` into an index at `folder`; go on where a killed build of the same index stopped.

    An index that is there already and is the same (model and documents) is left alone; another one is replaced once
    the new one is complete. `progress(done, total)` is called first with what was there already and then after each
    `chunk` documents; what is used again or thrown away is logged.

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
        if _is_same(folder, meta):
            return
        part = folder.parent / f".{folder.name}.part"
        known = KnownVectors()
        _remember(known, folder, meta)
        with disk_errors(part):
            done = _prepare_part(part, meta, documents, chunk, known)
        if known and not done:
            logger.info("documents that have not changed keep their vectors")
        _append_vectors(part / VECTORS, documents, done, embedder, chunk, known, progress)
        with disk_errors(folder):
            _put_in_place(part, folder)
    finally:
        lock.release()


def _is_same(folder: Path, meta: IndexMeta) -> bool:
    """Whether the index at `folder` is what would be built."""
    if not folder.exists():
        return False
    try:
        found, _, _ = read_index(folder)
    except InputError as error:
        logger.info(f"building the search index again: {error}")
        return False
    if (found.fingerprint, found.corpus) == (meta.fingerprint, meta.corpus):
        if found.source != meta.source:
            meta.write(folder)
        return True
    why = "the documents have changed" if found.fingerprint == meta.fingerprint else "it is of another model"
    logger.info(f"replacing the search index {folder}: {why}")
    return False


def _remember(known: KnownVectors, folder: Path, meta: IndexMeta) -> None:
    """Take the vectors of an index of the same model."""
    try:
        found, vectors_MD, documents = read_index(folder)
        if (found.fingerprint, found.dimension) == (meta.fingerprint, meta.dimension):
            known.add(documents, np.array(vectors_MD))
    except (InputError, ValueError, TypeError):
        return  # an index that cannot be read is built again from nothing


def _prepare_part(
    part: Path,
    meta: IndexMeta,
    documents: Sequence[IndexedDocument],
    chunk: int,
    known: KnownVectors,
) -> int:
    """Make the unfinished folder, or keep what is good in it; returns the number of documents that are embedded."""
    if part.exists():
        unfinished = _read_unfinished(part, meta)
        if unfinished is not None:
            found, vectors_MD, older = unfinished
            if found.corpus == meta.corpus:
                done = _keep_whole_chunks(part / VECTORS, meta, len(vectors_MD), chunk)
                logger.info(f"going on after {done:,} of {meta.count:,} documents that an earlier call embedded")
                return done
            known.add(older, vectors_MD)
        logger.info(f"starting {part.name} again: it is damaged, or of another model or other documents")
        shutil.rmtree(part)
    part.mkdir()
    write_documents(part, documents)
    (part / VECTORS).write_bytes(vectors_header(meta))
    # The description comes last: a folder that has one has the rest.
    meta.write(part)
    return 0


def _read_unfinished(
    part: Path, meta: IndexMeta
) -> tuple[IndexMeta, NDArray[np.float32], Sequence[IndexedDocument]] | None:
    """Description, good rows and documents of an unfinished folder; None if of another model or damaged."""
    try:
        found = IndexMeta.read(part)
        if (found.fingerprint, found.dimension) != (meta.fingerprint, meta.dimension):
            return None
        older = DocumentStore(part)
        header, data = vectors_header(found), (part / VECTORS).read_bytes()
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if not data.startswith(header):
        return None
    rows = (len(data) - len(header)) // (4 * meta.dimension)
    vectors_MD = np.frombuffer(data, "<f4", rows * meta.dimension, len(header)).reshape(rows, meta.dimension)
    bad = np.flatnonzero(~unit_rows(vectors_MD))
    return found, vectors_MD[: min(int(bad[0]) if len(bad) else rows, found.count)], older


def _keep_whole_chunks(path: Path, meta: IndexMeta, good: int, chunk: int) -> int:
    """Cut the vectors to whole chunks and return how many rows that leaves.

    Vectors in bf16 depend on their batch, so only then an interrupted build gives the bytes of an uninterrupted one.
    """
    done = meta.count if good == meta.count else good // chunk * chunk
    os.truncate(path, len(vectors_header(meta)) + done * 4 * meta.dimension)
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
    """Embed what is missing and append it, each chunk on the disk before the next starts."""
    progress(done, len(documents))
    for start in range(done, len(documents), chunk):
        batch = documents[start : start + chunk]
        vectors_MD, missing = known.find(batch, embedder.dimension)
        if missing:
            vectors_MD[missing] = _embed(embedder, texts_of(batch, missing))
        check_unit_rows(vectors_MD, batch)
        with disk_errors(path), path.open("ab") as stream:
            stream.write(vectors_MD.tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        progress(start + len(batch), len(documents))


def _embed(embedder: TextEmbedder, texts: list[str | Document]) -> NDArray[np.float32]:
    """Vectors [M, D] of texts.

    Raises:
        WorkError: the model gave something of another shape.
    """
    vectors_MD = np.asarray(embedder.encode_document(texts), "<f4")
    if vectors_MD.shape != (len(texts), embedder.dimension):
        raise WorkError(
            f"the model {embedder.name} gave vectors of shape {list(vectors_MD.shape)} for {len(texts)} documents, "
            f"not of its dimension {embedder.dimension}; check it with `gemma4vec doctor`"
        )
    return vectors_MD


def _put_in_place(part: Path, folder: Path) -> None:
    """Rename the finished folder over the old one."""
    outgoing = folder.parent / f".{folder.name}.old"
    shutil.rmtree(outgoing, ignore_errors=True)
    if folder.exists():
        os.replace(folder, outgoing)
    os.replace(part, folder)
    shutil.rmtree(outgoing, ignore_errors=True)
