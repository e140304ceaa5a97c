"""Every test gets outputs and a cache of its own, and no network."""

import gc
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is slow, not wrong.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")


_TESTS_BETWEEN_COLLECTIONS = 300
_finished = 0


def pytest_collection_finish() -> None:
    """What is imported by now stays, so that no collection of garbage looks through it again.

    The code collects garbage where it measures memory and after a training: half a second among two million objects.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_logfinish() -> None:
    """Freeze what a test has imported and left; now and then look whether it is garbage."""
    global _finished
    _finished += 1
    if _finished % _TESTS_BETWEEN_COLLECTIONS == 0:
        gc.unfreeze()
        gc.collect()
    gc.freeze()


flush = os.fsync


def flush_what_is_no_file(descriptor: int) -> None:
    """`os.fsync` where it can fail at once: on devices and pipes, and on what is not open."""
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        flush(descriptor)


@pytest.fixture(autouse=True, scope="session")
def shared_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For fixtures that live longer than a test: they too must not write where a person's runs are."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA4VEC_HOME", str(folder / "runs"))
        patch.setenv("GEMMA4VEC_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        # Flushing to the disk takes its time, and no test cuts the power; those of a full disk put their own here.
        patch.setattr(os, "fsync", flush_what_is_no_file)
        yield


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("GEMMA4VEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """The lines that the package logs during a test, from INFO on."""
    lines: list[str] = []
    logger = logging.getLogger("gemma4vec")
    handler, level = logging.Handler(logging.INFO), logger.level
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)
