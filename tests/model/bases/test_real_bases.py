"""Both bundled bases with their real weights: packed, padded and alone are one and the same."""

from pathlib import Path

import pytest
import torch

from gemma4vec.model.backbone.attention_probe import check
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.encoder.build import build
from gemma4vec.model.packing.packed_batch import PackedBatch, pack, pad
from gemma4vec.recipe.schema import Lora, Model
from gemma4vec.text.prompts import Prompted

LIMIT = 700  # beyond Gemma 3's sliding window of 512


def texts() -> list[Prompted]:
    words = (Path(__file__).parents[3] / "LICENSE").read_text(encoding="utf-8").split()
    return [Prompted("", " ".join(words[at : at + length])) for at, length in ((0, 9), (50, 60), (200, 640), (400, 25))]


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("name", ["gemma-3-270m", "smollm2-135m"])
def test_packed_padded_and_alone_are_the_same(name: str, attention: str) -> None:
    base = resolve_base(f"bundled:{name}")
    model = Model.model_validate({"base": "x", "attention": attention, "lora": Lora(rank=4), "prompts": "none"})
    built = build(model, base.path, dtype=torch.float32, seed=0)
    generator = torch.Generator().manual_seed(0)
    for key, parameter in built.trainable().items():
        if "lora_B" in key:
            parameter.data.normal_(0, 0.01, generator=generator)
    check(built.encoder.backbone)
    tokens = built.read(texts(), LIMIT)
    assert max(text.length for text in tokens) == LIMIT

    def outcome(layouts: list[PackedBatch]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        vectors = built.encoder(layouts)
        (vectors @ vectors.detach().roll(1, 0).T).sum().backward()
        gradients = {key: p.grad.clone() for key, p in built.trainable().items() if p.grad is not None}
        for parameter in built.trainable().values():
            parameter.grad = None
        return vectors.detach(), gradients

    vectors, gradients = outcome(pad(tokens, LIMIT, 0))  # one row at a time: every text alone
    for layouts in (pack(tokens, 1024, 4096, 0), pad(tokens, 4 * LIMIT, 0)):
        found, found_gradients = outcome(layouts)
        assert torch.nn.functional.cosine_similarity(found, vectors).min() >= 0.99999
        for key, gradient in gradients.items():
            difference = (found_gradients[key] - gradient).norm() / gradient.norm()
            assert difference < 2e-2, (key, difference)
