"""The head gives the library's own logits; its blockwise cross-entropy is the plain one, and never holds all logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_model import tiny_tokenizer, write_tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from gemma4vec.errors import InputError
from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.backbone.lm_head import LanguageModelHead, load_head
from gemma4vec.model.packing.packed_batch import Tokens, pack


def plain(head: LanguageModelHead, states_MD: Tensor, targets_M: Tensor) -> Tensor:
    logits = head.logits(states_MD)
    return torch.nn.functional.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets_M)


def drawn(count: int, vocabulary: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(count, 6, generator=generator, dtype=dtype)
    weight = torch.randn(vocabulary, 6, generator=generator, dtype=dtype)
    return states, weight, torch.randint(vocabulary, (count,), generator=generator)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 17),
    vocabulary=st.integers(2, 30),
    block=st.integers(1, 20),
    softcap=st.sampled_from([None, 2.0, 30.0]),
    scale=st.sampled_from([1.0, 7.0]),
)
def test_value_and_gradients_are_those_of_all_logits_at_once(
    count: int, vocabulary: int, block: int, softcap: float | None, scale: float
) -> None:
    results = []
    for blockwise in (True, False):
        states, weight, targets = drawn(count, vocabulary, torch.float64)
        states.requires_grad_()
        weight.requires_grad_()
        head = LanguageModelHead(weight, softcap)
        loss = head.cross_entropy(states, targets, block) if blockwise else plain(head, states, targets)
        (scale * loss).backward()
        results.append((loss.detach(), states.grad, weight.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_stays_near_and_frozen_weights_get_no_gradient(dtype: torch.dtype) -> None:
    states, weight, targets = drawn(33, 50, dtype)
    exact = plain(LanguageModelHead(weight.double(), 30.0), states.double(), targets)
    states.requires_grad_()
    loss = LanguageModelHead(weight, 30.0).cross_entropy(states, targets, 8)
    loss.backward()
    assert loss.dtype == torch.float32 and states.grad is not None and states.grad.dtype == dtype
    assert weight.grad is None
    torch.testing.assert_close(loss.double(), exact, rtol=2e-2 if dtype == torch.bfloat16 else 1e-6, atol=0)


def test_no_more_than_a_block_of_logits_is_ever_held() -> None:
    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            self.seen = max(self.seen, out.numel() if isinstance(out, Tensor) else 0)
            return out

    states, weight, targets = drawn(64, 1000, torch.float32)
    states.requires_grad_()
    with Largest() as largest:
        LanguageModelHead(weight, None).cross_entropy(states, targets, 4).backward()
    assert largest.seen <= 1000 * 6  # the matrix itself; 64 * 1000 logits would be ten times as many


def with_softcap(folder: Path) -> Path:
    write_tiny(folder, "gemma3")
    config = json.loads((folder / "config.json").read_text())
    assert config["final_logit_softcapping"] is None
    (folder / "config.json").write_text(json.dumps(config | {"final_logit_softcapping": 3.0}))
    return folder


def untied(folder: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def sharded(folder: Path) -> Path:
    LlamaForCausalLM.from_pretrained(untied(folder)).save_pretrained(folder / "shards", max_shard_size="50KB")
    return folder / "shards"


@pytest.mark.parametrize("make", [write_tiny, with_softcap, untied, sharded])
def test_logits_are_the_librarys_own(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path)
    backbone = load_backbone(folder, causal=True, dtype=torch.float32)
    ids = [2, 17, 40, 9, 300, 5]
    (layout,) = pack([Tokens(ids)], 16, 64, 0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0]
        found = load_head(backbone, folder).logits(backbone(layout))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_a_base_without_its_own_head_is_named(tmp_path: Path) -> None:
    folder = untied(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    backbone = load_backbone(folder, causal=True, dtype=torch.float32)
    with pytest.raises(InputError, match=r"^model\.base: .* has no language-model head \(lm_head\.weight\)"):
        load_head(backbone, folder)
