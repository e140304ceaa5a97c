"""Stores by the locations that people type.

FOLDER                              our own files
lance:FOLDER#TABLE                  LanceDB
postgresql://USER@HOST/DATABASE#TABLE   PostgreSQL with pgvector; the password from PGPASSWORD or ~/.pgpass
qdrant:http://HOST:6333#COLLECTION  Qdrant; the key from QDRANT_API_KEY
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.serving.store.store_meta import NoStoreError, StoreMeta
from gemma4vec.serving.store.vector_store import VectorStore

KINDS = ("files", "lance", "postgres", "qdrant")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")
SHAPES = "FOLDER, lance:FOLDER#TABLE, postgresql://HOST/DATABASE#TABLE or qdrant:http://HOST:6333#COLLECTION"


@dataclass(frozen=True)
class Location:
    """A parsed location: `address` is a folder or a URL, `name` a table or collection (empty for files)."""

    kind: str
    address: str
    name: str


def parse_location(text: str) -> Location:
    """Parse a location.

    Raises:
        InputError: a database without a table, or a name that is no table's.
    """
    address, mark, name = text.rpartition("#")
    if text.startswith("lance:"):
        kind, address = "lance", address.removeprefix("lance:")
    elif text.startswith(("postgresql://", "postgres://")):
        kind = "postgres"
    elif text.startswith("qdrant:"):
        kind, address = "qdrant", address.removeprefix("qdrant:")
        if mark and not address.startswith(("http://", "https://")):
            raise InputError(f"{text[:80]!r}: a Qdrant store is qdrant:http://HOST:6333#COLLECTION")
    elif re.match(r"[a-z][a-z0-9+]+://", text):
        raise InputError(f"{text.split('://', 1)[0]}:// is no store; use {SHAPES}")
    else:
        return Location("files", text, "")
    if not mark or not address or not _NAME.fullmatch(name):
        raise InputError(
            f"a {kind} store needs #NAME at the end of its location, of lower-case letters, digits and _; {SHAPES}"
        )
    return Location(kind, address, name)


def open_store(location: str, fingerprint: str | None = None) -> VectorStore:
    """Open a store; with `fingerprint`, that model must have made its vectors.

    Raises:
        InputError: no such store, a damaged one, one of another model, or a package that is not installed.
        WorkError: a database that cannot be reached.
    """
    found = parse_location(location)
    store = _open(found)
    if fingerprint is not None:
        try:
            store.meta.check_model(fingerprint, store.location)
        except InputError:
            store.close()
            raise
    return store


def verify_store(location: str) -> dict[str, Any]:
    """Compare the checksums of all files of a store in a folder.

    Returns:
        {"location", "rows", "files"}: its folder, its number of rows, and the number of files that were read.

    Raises:
        InputError: no such store, a damaged file, or a database, which checks its files itself.
    """
    found = parse_location(location)
    if found.kind != "files":
        raise InputError(f"{location}: a database checks its own files; --check is for a store in a folder")
    from gemma4vec.serving.store.own_files import OwnFiles

    store = OwnFiles.open(Path(found.address))
    try:
        return {"location": store.location, "rows": store.count(), "files": store.verify()}
    finally:
        store.close()


def create_store(location: str, meta: StoreMeta) -> VectorStore:
    """Make an empty store.

    Raises:
        InputError: it exists, or a package is not installed.
        WorkError: a database that cannot be reached, or a folder that cannot be written.
    """
    found = parse_location(location)
    if found.kind == "lance":
        from gemma4vec.serving.store.lance import LanceStore

        return LanceStore.create(Path(found.address), found.name, meta)
    if found.kind == "postgres":
        from gemma4vec.serving.store.postgres import PostgresStore

        return PostgresStore.create(found.address, found.name, meta)
    if found.kind == "qdrant":
        from gemma4vec.serving.store.qdrant import QdrantStore, connect

        return QdrantStore.create(connect(found.address), found.name, meta, f"qdrant:{found.address}")
    from gemma4vec.serving.store.own_files import OwnFiles

    return OwnFiles.create(Path(found.address), meta)


def open_or_create(location: str, meta: StoreMeta) -> VectorStore:
    """Open a store to which rows of `meta` may be added, or make it.

    Raises:
        InputError, WorkError: as `open_store` and `create_store`; or the store has another model, dimension or fields.
    """
    try:
        store = _open(parse_location(location))
    except NoStoreError:
        return create_store(location, meta)
    try:
        store.meta.check_same_rows(meta, store.location)
    except InputError:
        store.close()
        raise
    return store


def _open(found: Location) -> VectorStore:
    if found.kind == "lance":
        from gemma4vec.serving.store.lance import LanceStore

        return LanceStore.open(Path(found.address), found.name)
    if found.kind == "postgres":
        from gemma4vec.serving.store.postgres import PostgresStore

        return PostgresStore.open(found.address, found.name)
    if found.kind == "qdrant":
        from gemma4vec.serving.store.qdrant import QdrantStore, connect

        return QdrantStore.open(connect(found.address), found.name, f"qdrant:{found.address}")
    from gemma4vec.serving.store.own_files import OwnFiles

    return OwnFiles.open(Path(found.address))
