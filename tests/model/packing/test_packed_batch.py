"""Layouts hold every token once, rows never overflow, and little is wasted."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gemma4vec.model.backbone.last_token_layer import add_last_tokens
from gemma4vec.model.packing.packed_batch import Tokens, best_fit, lay_out, pack, pad, padding_share

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def documents_of(lengths_N: list[int]) -> list[Tokens]:
    """Documents whose tokens are all different, so that a misplaced one shows."""
    start, documents = 1, []
    for length in lengths_N:
        documents.append(Tokens(list(range(start, start + length))))
        start += length
    return documents


@given(lengths, st.integers(40, 80))
def test_best_fit_puts_every_document_in_one_row_that_holds_it(lengths_N: list[int], capacity: int) -> None:
    rows = best_fit(lengths_N, capacity)
    assert sorted(document for row in rows for document in row) == list(range(len(lengths_N)))
    assert all(sum(lengths_N[i] for i in row) <= capacity for row in rows)
    # No two rows could be one: that is what "fit" promises at the least.
    filled = sorted(sum(lengths_N[i] for i in row) for row in rows)
    assert len(filled) < 2 or filled[0] + filled[1] > capacity


def test_best_fit_refuses_what_fits_no_row() -> None:
    with pytest.raises(ValueError, match="document 1 has 9 tokens, a row holds 8"):
        best_fit([3, 9], 8)


@given(lengths, st.sampled_from([16, 48]), st.sampled_from([16, 96, 200]))
def test_both_layouts_hold_every_token_in_its_place(lengths_N: list[int], row_tokens: int, budget: int) -> None:
    documents = documents_of(lengths_N)
    for layouts in (pack(documents, row_tokens, budget, 0), pad(documents, budget, 0)):
        seen = []
        for layout in layouts:
            ids_T = layout.input_ids_RC.flatten()[layout.cells_T]
            positions_T = layout.positions_RC.flatten()[layout.cells_T]
            segments_T = layout.segments_RC.flatten()[layout.cells_T]
            assert int((layout.segments_RC >= 0).sum()) == layout.real_tokens
            parts = zip(*(x.split(layout.lengths_N.tolist()) for x in (ids_T, positions_T, segments_T)), strict=True)
            for number, (ids, positions, segments) in zip(layout.documents, parts, strict=True):
                assert ids.tolist() == documents[number].ids
                assert positions.tolist() == list(range(len(ids)))
                assert len(set(segments.tolist())) == 1
            seen += layout.documents
        assert sorted(seen) == list(range(len(documents)))


def test_micro_batches_are_of_nearly_one_height_and_stay_in_the_budget() -> None:
    generator = torch.Generator().manual_seed(0)
    documents = documents_of(torch.randint(5, 129, (300,), generator=generator).tolist())
    layouts = pack(documents, 256, 2048, 0)
    assert len(layouts) > 5
    heights, widths = zip(*(layout.input_ids_RC.shape for layout in layouts), strict=True)
    assert set(widths[:-1]) == {256} and widths[-1] <= 256
    assert max(heights[:-1]) - min(heights[:-1]) <= 1
    assert all(layout.all_tokens <= 2048 for layout in layouts)


@pytest.mark.parametrize("rows", [16, 32, 64])
@pytest.mark.parametrize("seed", range(5))
def test_a_packed_batch_wastes_at_most_five_percent(rows: int, seed: int) -> None:
    # Lengths as in code search: short queries, functions cut at 128 tokens.
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(14, 40, (rows,), generator=generator)
    functions = torch.randint(30, 200, (rows,), generator=generator).clamp_max(128)
    layouts = pack(documents_of(torch.cat([queries, functions]).tolist()), 256, 2048, 0)
    assert padding_share(layouts) <= 0.05


def test_padding_share_counts_cells() -> None:
    layout = lay_out(documents_of([3, 2]), [[0], [1]], 4, 0, height=3)
    assert padding_share([layout]) == pytest.approx(1 - 5 / 12)
    assert padding_share([]) == 0.0


def test_to_a_gpu_everything_goes_from_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = add_last_tokens(lay_out(documents_of([3, 2]), [[0], [1]], 4, 0))
    pinned: set[int] = set()
    sent: list[bool] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.add(id(tensor))
        return tensor

    def to(tensor: torch.Tensor, device: str, *, non_blocking: bool) -> torch.Tensor:
        sent.append(id(tensor) in pinned and device == "cuda" and non_blocking)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    moved = layout.to("cuda")
    assert all(sent) and len(sent) == sum(isinstance(getattr(layout, f.name), torch.Tensor) for f in fields(layout)) + 2
    assert moved.documents == layout.documents and moved.last_tokens is not None
