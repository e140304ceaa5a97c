"""Packed equals padded equals alone, in values and gradients, and no document sees its neighbours.

The oracle for "alone" is the transformers model itself, called as its documentation shows, without our masks.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.llama import modeling_llama

from gemma4vec.errors import InputError
from gemma4vec.model.backbone import FAMILIES, Backbone, load_backbone
from gemma4vec.model.packing import Tokens, packed, padded
from tiny_model import write_tiny

# Longer than the sliding window (8) on both sides, so that a wrong window shows.
LENGTHS = [5, 23, 11, 17, 30, 1, 8]


@pytest.fixture(scope="module", params=["gemma3", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library computes RMSNorm in fp32 whatever the model's type; sums of gradients then differ by rounding."""

    def gemma(self: Any, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1.0 + self.weight)

    def llama(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(modeling_gemma3.Gemma3RMSNorm, "forward", gemma)
    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", llama)


def documents(seed: int = 0) -> list[Tokens]:
    generator = torch.Generator().manual_seed(seed)
    return [Tokens(torch.randint(4, 400, (n,), generator=generator).tolist()) for n in LENGTHS]


def states_by_document(backbone: Backbone, layouts: list) -> dict[int, torch.Tensor]:
    found = {}
    for layout in layouts:
        parts = backbone(layout).split(layout.lengths_N.tolist())
        found.update(zip(layout.documents, parts, strict=True))
    return found


@pytest.mark.usefixtures("norms_in_float64")
@pytest.mark.parametrize("causal", [True, False])
def test_packed_equals_padded_equals_the_plain_model_in_float64(folder: Path, causal: bool) -> None:
    backbone = load_backbone(folder, causal=causal, dtype=torch.float64).eval()
    texts = documents()
    in_packs = states_by_document(backbone, packed(texts, 32, 96, 0))
    in_padding = states_by_document(backbone, padded(texts, 96, 0))
    for number, text in enumerate(texts):
        # No mask and no packing: the library's own forward of this text alone.
        alone = backbone.model(input_ids=torch.tensor([text.ids]), use_cache=False).last_hidden_state[0]
        torch.testing.assert_close(in_packs[number], alone, rtol=0, atol=1e-9)
        torch.testing.assert_close(in_padding[number], alone, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("norms_in_float64")
@pytest.mark.parametrize("causal", [True, False])
def test_gradients_of_packed_and_padded_are_equal(folder: Path, causal: bool) -> None:
    gradients = []
    for lay in (lambda t: packed(t, 32, 96, 0), lambda t: padded(t, 96, 0)):
        backbone = load_backbone(folder, causal=causal, dtype=torch.float64)
        found = states_by_document(backbone, lay(documents()))
        weights = torch.randn(len(found), 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        sum((found[i].mean(0) * weights[i]).sum() for i in range(len(found))).backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 10
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("causal", [True, False])
def test_a_document_does_not_depend_on_its_neighbours_in_float32(folder: Path, causal: bool) -> None:
    backbone = load_backbone(folder, causal=causal, dtype=torch.float32).eval()
    texts, others = documents(0), documents(1)
    mixed = [texts[0], *others[1:]]
    with torch.no_grad():
        first = states_by_document(backbone, packed(texts, 64, 128, 0))[0]
        second = states_by_document(backbone, packed(mixed, 64, 128, 0))[0]
    assert torch.equal(first, second)


@pytest.mark.parametrize("causal", [True, False])
def test_bf16_packed_stays_close_to_padded(folder: Path, causal: bool) -> None:
    backbone = load_backbone(folder, causal=causal, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        a = states_by_document(backbone, packed(documents(), 32, 96, 0))
        b = states_by_document(backbone, padded(documents(), 96, 0))
    cosines = torch.stack(
        [torch.cosine_similarity(a[i].float().mean(0), b[i].float().mean(0), dim=0) for i in range(len(a))]
    )
    # bf16 keeps 8 bits; sums in another order differ in the last ones.
    assert cosines.min() > 0.999


@pytest.mark.parametrize("causal", [True, False])
def test_the_window_is_halved_for_bidirectional_gemma(tmp_path: Path, causal: bool) -> None:
    write_tiny(tmp_path, "gemma3", window=8)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.sliding_window == 8
    backbone = load_backbone(tmp_path, causal=causal, dtype=torch.float32)
    # transformers: exclusive bounds, window // 2 + 1 to either side.
    assert backbone.config.sliding_window == (8 if causal else 5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_saved_model_reloads_with_the_same_attention(folder: Path, tmp_path: Path, causal: bool) -> None:
    backbone = load_backbone(folder, causal=causal, dtype=torch.float64).eval()
    backbone.model.save_pretrained(tmp_path)
    plain = AutoModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    text = documents()[4]
    ours = backbone(padded([text], 64, 0)[0])
    theirs = plain(input_ids=torch.tensor([text.ids])).last_hidden_state[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    again = load_backbone(tmp_path, causal=causal, dtype=torch.float64).eval()
    torch.testing.assert_close(again(padded([text], 64, 0)[0]), ours, rtol=0, atol=1e-12)


def test_gradient_checkpointing_changes_no_gradient(folder: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        backbone = load_backbone(folder, causal=False, dtype=torch.float64).train()
        if checkpointing:
            backbone.use_gradient_checkpointing()
        sum(
            states.square().sum() for states in states_by_document(backbone, packed(documents(), 32, 96, 0)).values()
        ).backward()
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=0, atol=1e-12)


def test_an_unverified_model_type_is_refused_unless_the_user_says_otherwise(folder: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=50)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"model\.base: model type 'gpt2' was never verified.*allow_untested"):
        load_backbone(tmp_path, causal=True, dtype=torch.float32)
    assert set(FAMILIES) == {"gemma3_text", "llama"}
