"""A shared beginning is computed once and changes nothing: values and gradients are those of whole documents."""

from pathlib import Path

import pytest
import torch
from float64_norms import use_float64_norms
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import BUILDERS, MODES, write_tiny
from traced import trace_only

from gemma4vec.model.backbone.backbone import Backbone, load_backbone
from gemma4vec.model.backbone.masks import attention_mask
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, pack, padding_share
from gemma4vec.model.packing.shared_prefix import find_shared_prefixes

CAUSAL = [architecture for architecture, causal in MODES if causal]
QUERY, DOCUMENT = [2, 31, 32, 33, 34, 35, 36, 37, 38], [2, 41, 42, 43, 44, 45]


def texts(generator: torch.Generator, queries: int = 6, documents: int = 9) -> list[Tokens]:
    """Queries and documents behind two prompts, and one text without; longer than the sliding window (8)."""

    def some(prompt: list[int], count: int, low: int, high: int) -> list[Tokens]:
        lengths = torch.randint(low, high, (count,), generator=generator).tolist()
        ends = [torch.randint(50, 390, (n,), generator=generator).tolist() for n in lengths]
        return [Tokens(prompt + end, len(prompt)) for end in ends]

    return [*some(QUERY, queries, 1, 6), *some([], 1, 9, 10), *some(DOCUMENT, documents, 3, 25)]


def states_by_document(backbone: Backbone, layouts: list[PackedBatch]) -> list[torch.Tensor]:
    found = {}
    for layout in layouts:
        found |= dict(zip(layout.documents, backbone(layout).split(layout.lengths_N.tolist()), strict=True))
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("architecture", CAUSAL)
def test_every_causal_family_gives_the_states_and_gradients_of_whole_documents(
    tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_float64_norms(monkeypatch)
    backbone = load_backbone(write_tiny(tmp_path, architecture), causal=True, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    documents = texts(generator)
    found = []
    for share in (False, True):
        layouts = pack(documents, 32, 96, 0, share=share)
        assert len(layouts) > 1 and all(bool(layout.shared) is share for layout in layouts)
        backbone.zero_grad()
        states = states_by_document(backbone, layouts)
        weights = torch.Generator().manual_seed(1)
        loss = sum((x * torch.randn(x.shape, generator=weights, dtype=x.dtype)).sum() for x in states)
        loss.backward()  # type: ignore[union-attr]
        found.append((states, {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}))
    (whole, whole_gradients), (shared, shared_gradients) = found
    for one, other in zip(whole, shared, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert whole_gradients.keys() == shared_gradients.keys()
    for name, gradient in whole_gradients.items():
        assert gradient is not None
        torch.testing.assert_close(gradient, shared_gradients[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("way", "checkpointed"),
    [
        ("traced", False),
        pytest.param("compiled", False, marks=pytest.mark.slow),
        pytest.param("compiled", True, marks=pytest.mark.slow),
    ],
)
def test_compiled_layers_take_shared_beginnings(
    tmp_path: Path, way: str, checkpointed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "traced":
        trace_only(monkeypatch)
    documents = texts(torch.Generator().manual_seed(0))
    found = []
    for compiled, share in ((False, False), (True, True)):
        backbone = load_backbone(write_tiny(tmp_path, "gemma3", layers=2), causal=True, dtype=torch.float32)
        if checkpointed:
            backbone.train()
            backbone.use_gradient_checkpointing()
        if compiled:
            backbone.compile_layers()
        states = states_by_document(backbone, pack(documents, 32, 96, 0, share=share))
        torch.stack([x.pow(3).sum() for x in states]).sum().backward()
        found.append([*states, *(p.grad for p in backbone.parameters() if p.grad is not None)])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert float((one - two).detach().norm()) <= 1e-4 * float(one.detach().norm())


sequences = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=12)


@given(sequences, st.integers(4, 40))
def test_a_beginning_begins_each_of_its_documents_and_leaves_it_a_token(documents: list[list[int]], most: int) -> None:
    found = find_shared_prefixes(documents, most)
    assert found.size <= most
    for number, ids in enumerate(documents):
        length = found.length(number)
        assert length < len(ids)
        if length:
            assert tuple(ids[:length]) == found.tokens[found.of(number)]
    for number in range(len(found.tokens)):
        assert found.of_N.count(number) > 1


def test_the_longest_common_beginning_is_found_for_each_prompt() -> None:
    documents = [[*QUERY, 60], [*DOCUMENT, 50, 51], [*QUERY, 70, 71], [*DOCUMENT, 50, 52, 53], [9, 9]]
    found = find_shared_prefixes(documents, 30)
    assert set(found.tokens) == {tuple(QUERY), (*DOCUMENT, 50)}
    assert [found.length(i) for i in range(5)] == [9, 7, 9, 7, 0]
    assert found.size == 16 and found.longest == 9
    # With room for one alone, the one that saves more stands.
    assert find_shared_prefixes(documents, 15).tokens == (tuple(QUERY),)
    assert find_shared_prefixes(documents[:2], 30).size == 0


@given(st.integers(0, 1000), st.sampled_from([32, 64]), st.sampled_from([64, 128]), st.integers(0, 30))
def test_a_layout_holds_each_document_once_and_its_beginning_in_row_0(
    seed: int, row_tokens: int, budget: int, count: int
) -> None:
    documents = texts(torch.Generator().manual_seed(seed), queries=count, documents=8)
    layouts = pack(documents, row_tokens, budget, 0, share=True)
    seen = []
    for layout in layouts:
        assert layout.all_tokens <= budget
        ids_T = layout.input_ids_RC.flatten()[layout.cells_T].split(layout.lengths_N.tolist())
        positions_T = layout.positions_RC.flatten()[layout.cells_T].split(layout.lengths_N.tolist())
        for number, ids, positions in zip(layout.documents, ids_T, positions_T, strict=True):
            assert ids.tolist() == list(documents[number].ids)
            assert positions.tolist() == list(range(len(ids)))
        counts = torch.bincount(layout.cells_T, minlength=layout.all_tokens)
        assert counts[layout.shared :].max() <= 1
        assert int((layout.segments_RC >= 0).sum()) == layout.computed_tokens <= layout.real_tokens
        seen += layout.documents
    assert sorted(seen) == list(range(len(documents)))


def test_sharing_computes_fewer_cells_and_wastes_little() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [*torch.randint(5, 30, (32,), generator=generator), *torch.randint(30, 200, (32,), generator=generator)]
    prompts = [QUERY] * 32 + [DOCUMENT] * 32
    documents = [
        Tokens((prompt + torch.randint(50, 390, (int(n),), generator=generator).tolist())[:128])
        for n, prompt in zip(lengths, prompts, strict=True)
    ]
    plain, shared = (pack(documents, 128, 2048, 0, share=share) for share in (False, True))
    cells, fewer = (sum(layout.all_tokens for layout in layouts) for layouts in (plain, shared))
    assert fewer < 0.92 * cells
    assert padding_share(shared) <= 0.05
    assert sum(x.real_tokens for x in plain) == sum(x.real_tokens for x in shared) == sum(x.length for x in documents)


def test_a_beginning_is_never_shared_where_attention_goes_both_ways() -> None:
    layout = pack(texts(torch.Generator().manual_seed(0)), 32, 96, 0, share=True)[0]
    with pytest.raises(ValueError, match="not causal"):
        attention_mask(
            layout.positions_RC,
            layout.segments_RC,
            causal=False,
            prefix_RC=layout.prefix_RC,
            shared=layout.shared,
        )


def test_there_is_a_causal_family_to_test() -> None:
    assert set(CAUSAL) <= set(BUILDERS) and "gemma4" in CAUSAL and len(CAUSAL) >= 5
