"""A damaged base is one line, whatever a library raises for it; errors of ours and a lack of memory pass."""

import pytest
import torch
from safetensors import SafetensorError

from gemma4vec.errors import InputError, WorkError
from gemma4vec.model.bases.load_errors import base_errors


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SafetensorError("invalid header\n at 1"), "invalid header at 1"),
        (KeyError("rope_type"), "'rope_type'"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (RuntimeError("x" * 5000), "x" * 200),
    ],
)
def test_what_a_library_raises_is_one_line(error: Exception, reason: str) -> None:
    with pytest.raises(InputError) as found, base_errors("a/base"):
        raise error
    assert str(found.value) == (
        f"model.base: a/base cannot be loaded ({reason}); check its files, or download it again"
    )


@pytest.mark.parametrize("error", [WorkError("a"), MemoryError(), torch.OutOfMemoryError(), KeyboardInterrupt()])
def test_other_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)), base_errors("a/base"):
        raise error
