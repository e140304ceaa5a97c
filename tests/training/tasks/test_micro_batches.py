"""Padded micro-batches of texts of like length: the same vectors and gradients as in the order drawn, less padding."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import write_tiny

from gemma4vec.model.encoder.build import build
from gemma4vec.model.packing.packed_batch import Tokens, pack, pad, padding_share
from gemma4vec.recipe import schema
from gemma4vec.training.batches.micro_batches import (
    RECTANGLE_COST,
    cut_rectangles,
    lay_out_texts,
    pad_by_length,
    padding_by_layout,
    texts_of,
)


def texts(lengths: list[int]) -> list[Tokens]:
    chance = np.random.default_rng(0)
    return [Tokens(chance.integers(3, 40, length).tolist()) for length in lengths]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(8, 100))
def test_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    documents = texts(lengths)
    layouts = pad_by_length(documents, budget, 0)
    assert sorted(n for layout in layouts for n in layout.documents) == list(range(len(documents)))
    for layout in layouts:
        rows, columns = layout.input_ids_RC.shape
        assert layout.all_tokens <= budget or rows == 1
        assert columns == max(documents[n].length for n in layout.documents)
    by_number = {n: one for layout in layouts for n, one in zip(layout.documents, texts_of([layout]), strict=True)}
    assert [list(by_number[n].ids) for n in range(len(documents))] == [list(one.ids) for one in documents]


@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_on_a_gpu_widths_are_multiples_of_eight(kind: str) -> None:
    layout = schema.Layout.model_validate({"kind": kind, "row_tokens": 44, "tokens_per_forward": 100})
    documents = texts([3, 9, 11, 11, 30, 31, 43])
    wide, plain = (lay_out_texts(documents, layout, 0, device=device) for device in ("cuda", "cpu"))
    assert all(one.input_ids_RC.shape[1] % 8 == 0 for one in wide)
    assert any(one.input_ids_RC.shape[1] % 8 for one in plain)
    for made in (wide, plain):
        found = {n: one.ids for layout in made for n, one in zip(layout.documents, texts_of([layout]), strict=True)}
        assert [found[n] for n in range(7)] == [one.ids for one in documents]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(4, 40))
def test_the_cuts_are_the_cheapest(lengths: list[int], budget: int) -> None:
    ordered = sorted(lengths, reverse=True)
    between = [i for i in range(1, len(ordered)) if ordered[i] != ordered[i - 1]]

    def cost(places: list[int]) -> float:
        total = 0.0
        for start, end in itertools.pairwise([0, *places, len(ordered)]):
            width = ordered[start]
            rectangles = math.ceil((end - start) / max(1, budget // width))
            total += (end - start) * width + rectangles * budget / RECTANGLE_COST
        return total

    every = [list(places) for n in range(len(between) + 1) for places in itertools.combinations(between, n)]
    found = cut_rectangles(ordered, budget)
    assert [at for one in found for at in range(*one)] == list(range(len(ordered)))
    computed = sum((end - start) * ordered[start] + budget / RECTANGLE_COST for start, end in found)
    assert computed <= min(map(cost, every)) + 1e-9  # less where a full rectangle is followed by a narrower one


def test_little_is_wasted_on_lengths_as_they_come() -> None:
    lengths = np.random.default_rng(1).lognormal(3.6, 0.7, 256).astype(int).clip(3, 256).tolist()
    documents = texts(lengths)
    in_order, by_length = pad(documents, 4096, 0), pad_by_length(documents, 4096, 0)
    assert padding_share(in_order) > 0.4 and padding_share(by_length) < 0.15
    layout = schema.Layout(row_tokens=256, tokens_per_forward=4096)
    found = padding_by_layout([by_length], layout)
    assert found["padded"] == pytest.approx(padding_share(by_length))
    assert found["packed"] == pytest.approx(padding_share(pack(documents, 256, 4096, 0)), abs=0.01)
    shared = padding_by_layout([by_length], layout, share=True)
    assert shared["packed"] == pytest.approx(padding_share(lay_out_texts(documents, layout, 0, share=True)), abs=0.01)


def test_vectors_and_gradients_are_those_of_the_order_drawn(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base")
    settings = schema.Model.model_validate({"base": str(base), "lora": {"rank": 4}})
    documents = texts([5, 30, 1, 12, 12, 29, 7, 3, 18])
    layout = schema.Layout(kind="padded", tokens_per_forward=64)
    results = []
    for layouts in (pad(documents, 64, 0), lay_out_texts(documents, layout, 0)):
        built = build(settings, base, dtype=torch.float64, seed=0)
        with torch.no_grad():
            for parameter in built.trainable().values():
                parameter.add_(0.02)
        vectors_ND = built.encoder(layouts)
        (vectors_ND * torch.arange(vectors_ND.numel()).view_as(vectors_ND).sin()).sum().backward()
        results.append([vectors_ND, *(p.grad for p in built.trainable().values())])
    for one, two in zip(*results, strict=True):
        assert one is not None and two is not None
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
