"""Leaving out of the last layer what no readout of last tokens needs changes neither states nor gradients."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny_model import write_tiny
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile
from traced import trace_only

from gemma4vec.model.backbone.attention_probe import TrainingProbe
from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.backbone.last_token_layer import find_last_tokens
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, pack, pad

# Compiled, each takes up to two minutes; layers of mistral and qwen3 differ little from llama's.
CASES = [("gemma3", True, "traced")]
SLOW_CASES = [
    pytest.param(name, causal, "compiled", marks=pytest.mark.slow)
    for name, causal in (("gemma3", True), ("gemma3", False), ("llama", True), ("mistral", True), ("qwen3", True))
]
WAYS = ["traced", pytest.param("compiled", marks=pytest.mark.slow)]


def layouts(share: bool = True) -> list[PackedBatch]:
    generator = torch.Generator().manual_seed(0)
    prompt = [2, 31, 32, 33, 34, 35]
    texts = [
        Tokens(prompt + torch.randint(40, 390, (n,), generator=generator).tolist())
        for n in (9, 7, 16, 12, 3, 8, 5, 2, 4, 25, 1, 1, 17)
    ]
    return pack(texts, 32, 96, 0, share=share)


@pytest.mark.parametrize(("architecture", "causal", "way"), [*CASES, *SLOW_CASES])
def test_states_and_gradients_are_those_of_whole_rows(
    tmp_path: Path, architecture: str, causal: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "traced":
        trace_only(monkeypatch)
    folder = write_tiny(tmp_path, architecture, layers=2)
    found = []
    for compiled in (False, True):
        backbone = load_backbone(folder, causal=causal, dtype=torch.float32)
        if compiled:
            backbone.compile_layers()
        states = []
        for layout in layouts(share=causal):
            assert backbone.supports_last_token_only(layout) is compiled
            ends_N = layout.lengths_N.cumsum(0) - 1
            states.append(backbone(layout, last_token_only=True) if compiled else backbone(layout)[ends_N])
        sum(state.pow(3).sum() for state in states).backward()  # of squares, behind the last norm, none would depend
        gradients = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
        found.append((states, gradients))
    (plain_states, plain), (fast_states, fast) = found
    for one, other in zip(plain_states, fast_states, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert plain.keys() == fast.keys()
    for name, gradient in plain.items():
        assert float((gradient - fast[name]).norm()) <= 1e-4 * float(gradient.norm()), name


@pytest.mark.parametrize(
    ("share", "way"),
    [
        pytest.param(True, "traced", marks=pytest.mark.slow),
        pytest.param(True, "compiled", marks=pytest.mark.slow),
        pytest.param(False, "compiled", marks=pytest.mark.slow),
    ],
)
def test_once_passed_back_training_finds_its_code_compiled(
    tmp_path: Path, share: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "traced":
        trace_only(monkeypatch, dynamic=True)
    backbone = load_backbone(write_tiny(tmp_path, "gemma3", layers=3), causal=True, dtype=torch.float32).train()
    torch._dynamo.reset()
    counters.clear()
    probe = TrainingProbe(backbone, 32, share=share, last_token_only=True)
    backbone.compile_layers()
    probe.check()
    made = counters["stats"]["unique_graphs"]
    assert made == 2 and all(parameter.grad is None for parameter in backbone.parameters())
    for layout in layouts(share):
        backbone(layout, last_token_only=True).sum().backward()
    assert counters["stats"]["unique_graphs"] == made


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_computed_that_leads_nowhere(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "traced":
        trace_only(monkeypatch)
    backbone = load_backbone(write_tiny(tmp_path, "llama", layers=3), causal=True, dtype=torch.float32).eval()
    backbone.compile_layers()
    layout = layouts()[0]
    tokens, width = layout.all_tokens, int(backbone.config.intermediate_size)

    def wide_products(last_token_only: bool) -> int:
        """Products that lead from all tokens into a feed-forward."""
        with torch.no_grad():
            backbone(layout, last_token_only=last_token_only)
            with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as run:
                backbone(layout, last_token_only=last_token_only)
        return sum(
            event.key in ("aten::mm", "aten::addmm", "aten::linear") and [tokens, width] in _results(event.input_shapes)
            for event in run.events()
        )

    assert wide_products(last_token_only=False) == 6
    assert wide_products(last_token_only=True) == 4


def _results(shapes: list[list[int]]) -> list[list[int]]:
    """Shapes that a product of two of these matrices may have."""
    matrices = [shape for shape in shapes if len(shape) == 2]
    return [[a[0], b[1]] for a, b in pairwise(matrices) if a[1] == b[0]]


def test_checkpointed_layers_compute_whole_rows(tmp_path: Path) -> None:
    backbone = load_backbone(write_tiny(tmp_path, "llama", layers=2), causal=True, dtype=torch.float32)
    backbone.use_gradient_checkpointing()
    backbone.compile_layers()
    assert not any(backbone.supports_last_token_only(layout) for layout in layouts())


@pytest.mark.slow  # five ways, each traced: a minute
def test_checkpointing_may_change_while_layers_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two stages. Selective checkpointing of compiled layers is the compiler's, and ends stay ends.

    There is one layout, so shapes are static here: tracing unknown ones ten times takes a minute and a half.
    """
    trace_only(monkeypatch)
    backbone = load_backbone(write_tiny(tmp_path, "gemma3", layers=2), causal=True, dtype=torch.float64).train()
    layout = layouts()[0]
    ends_N = layout.lengths_N.cumsum(0) - 1

    def found(last_token_only: bool) -> list[torch.Tensor]:
        backbone.zero_grad()
        states = backbone(layout, last_token_only=True) if last_token_only else backbone(layout)[ends_N]
        states.pow(3).sum().backward()
        return [states, *(p.grad.clone() for p in backbone.parameters() if p.grad is not None)]

    plain = found(False)
    backbone.compile_layers()
    for how in (False, "selective", True, "selective", False):
        backbone.use_gradient_checkpointing(how)
        assert backbone.supports_last_token_only(layout) == (how is not True)
        for one, other in zip(plain, found(backbone.supports_last_token_only(layout)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)  # norms are in fp32


@pytest.mark.parametrize("lay", ["packed", "shared", "padded"])
def test_each_document_finds_its_last_token(lay: str) -> None:
    generator = torch.Generator().manual_seed(1)
    texts = [Tokens([2, 3, 4, 5, 6, *torch.randint(40, 390, (n,), generator=generator).tolist()]) for n in (4, 1, 9, 2)]
    made = pad(texts, 64, 0) if lay == "padded" else pack(texts, 32, 64, 0, share=lay == "shared")
    for layout in made:
        last_RM, places_N = find_last_tokens(layout)
        assert last_RM.shape[0] == layout.input_ids_RC.shape[0] and last_RM.shape[1] >= 2
        ids_N = layout.input_ids_RC.gather(1, last_RM).flatten()[places_N]
        assert ids_N.tolist() == [texts[number].ids[-1] for number in layout.documents]
