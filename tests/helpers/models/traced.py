"""Layers that are traced as `torch.compile` traces them, and not compiled."""

import pytest
from torch import nn


def trace_only(monkeypatch: pytest.MonkeyPatch, *, dynamic: bool = False) -> None:
    """Let `compile_layers` use `aot_eager`, which traces layers and their backward passes as `inductor` does.

    Generating code is left out, and with `dynamic=False` unknown shapes are too: a test with one layout takes seconds
    instead of half a minute. `make slow` runs the same tests compiled.
    """
    compile_layer = nn.Module.compile
    changed = {"backend": "aot_eager"} | ({} if dynamic else {"dynamic": False})
    monkeypatch.setattr(nn.Module, "compile", lambda layer, **how: compile_layer(layer, **(how | changed)))
