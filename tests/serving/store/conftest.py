"""One PostgreSQL server for a session, started at its first use, and a new store of each kind for a test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres_server import postgres_server, reason_to_skip

from gemma4vec.serving.store.open_store import create_store
from gemma4vec.serving.store.qdrant import QdrantStore
from gemma4vec.serving.store.store_meta import StoreMeta
from gemma4vec.serving.store.vector_store import VectorStore


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["files", "lance", "postgres", "qdrant"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_store(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[StoreMeta], VectorStore]]:
    """Make a store of the test's kind; it is dropped afterwards."""
    made: list[VectorStore] = []

    def make(meta: StoreMeta) -> VectorStore:
        if kind == "qdrant":
            from qdrant_client import QdrantClient

            store: VectorStore = QdrantStore.create(QdrantClient(":memory:"), "rows", meta, "qdrant:memory")
        else:
            store = create_store(location(kind, tmp_path, request), meta)
        made.append(store)
        return store

    yield make
    for store in made:
        store.drop()


@pytest.fixture
def place(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The location of the test's store."""
    return location(kind, tmp_path, request)


def location(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if kind == "files":
        return str(tmp_path / "store")
    if kind == "lance":
        return f"lance:{tmp_path / 'lance'}#rows"
    if kind == "qdrant":
        return f"local-qdrant:{tmp_path / 'qdrant'}"
    return f"{request.getfixturevalue('postgres_url')}#t{abs(hash(request.node.nodeid)) % 10**12}"
