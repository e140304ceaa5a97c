"""Two tiny finished runs and a dev suite, made once; programs that run exports start at once, but for two tests."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
from tiny_gemma import save_tiny_run, write_suite

from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.export.runtimes import ask
from gemma4vec.export.source import Source, open_source


@pytest.fixture(autouse=True, scope="session")
def programs_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ask, "subprocess", SimpleNamespace(run=forked.run))
        yield


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_suite(tmp_path_factory.mktemp("suite") / "tiny-dev")


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bidirectional, mean, two dense layers, Matryoshka."""
    folder = tmp_path_factory.mktemp("both")
    return save_tiny_run(folder, (16,), attention="bidirectional", readout={"name": "mean"}, head={"widths": [48, 24]})


@pytest.fixture(scope="session")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Causal, last token."""
    return save_tiny_run(tmp_path_factory.mktemp("causal"), attention="causal", readout={"name": "last_token"})


@pytest.fixture(scope="session")
def sources(both: Path, causal: Path, suite: Path) -> dict[str, Source]:
    load_suite(suite)
    return {"both": open_source(str(both)), "causal": open_source(str(causal))}
