"""Matrices and plans get their fork server at once, from the one that the tests have."""

import subprocess
from collections.abc import Iterator
from types import SimpleNamespace

import forked
import pytest

from gemma4vec.pipeline import worker


@pytest.fixture(autouse=True, scope="session")
def workers_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "subprocess", SimpleNamespace(Popen=forked.Popen, PIPE=subprocess.PIPE))
        yield
