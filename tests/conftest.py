"""Every test gets outputs and a cache of its own, and no network."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("GEMMA4VEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
