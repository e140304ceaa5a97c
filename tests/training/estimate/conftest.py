"""What all tests of estimates share."""

import pytest

from gemma4vec.training.estimate import layer_costs


@pytest.fixture(autouse=True)
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers in bf16 are measured as they are, also on a processor that emulates it."""
    monkeypatch.setattr(layer_costs, "is_emulated", lambda *_: False)
