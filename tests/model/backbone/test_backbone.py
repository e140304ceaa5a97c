"""Packed equals padded equals alone, in values and gradients, and no document sees its neighbors.

The oracle for "alone" is the transformers model itself, called as its documentation shows, without our masks.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from float64_norms import use_float64_norms
from tiny_model import BUILDERS, MODES, tiny_tokenizer, write_tiny
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from traced import trace_only
from transformers import AutoConfig
from transformers.models.t5gemma import modeling_t5gemma

from gemma4vec.model.backbone import backbone as module_of_backbone
from gemma4vec.model.backbone.backbone import Backbone, load_backbone
from gemma4vec.model.packing.packed_batch import Tokens, pack, pad

# Longer than the sliding window (8) on both sides, so that a wrong window shows.
LENGTHS = [5, 23, 11, 17, 30, 1, 8]


EVERY_PAIR = pytest.mark.parametrize(("architecture", "causal"), MODES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {architecture: write_tiny(tmp_path_factory.mktemp(architecture), architecture) for architecture in BUILDERS}


@pytest.fixture
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library computes RMSNorm in fp32 whatever the model's type; sums of gradients then differ by rounding."""
    use_float64_norms(monkeypatch)
    # Softmax too: the library's capped attention is in fp32.
    monkeypatch.setattr(modeling_t5gemma, "eager_attention_forward", capped_in_float64)


def capped_in_float64(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **settings: Any
) -> tuple[torch.Tensor, None]:
    key, value = (x.repeat_interleave(module.num_key_value_groups, 1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * settings["scaling"]
    scores = torch.tanh(scores / settings["softcap"]) * settings["softcap"]
    if attention_mask is not None:
        scores = scores + attention_mask
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


def alone(backbone: Backbone, text: Tokens) -> torch.Tensor:
    """The library's own forward of one text: no mask of ours, no packing."""
    backbone.config._attn_implementation = "eager" if backbone.plain_attention != "sdpa" else "sdpa"
    states: torch.Tensor = backbone.model(input_ids=torch.tensor([text.ids]), use_cache=False).last_hidden_state[0]
    return states


def documents(seed: int = 0) -> list[Tokens]:
    generator = torch.Generator().manual_seed(seed)
    return [Tokens(torch.randint(4, 390, (n,), generator=generator).tolist()) for n in LENGTHS]


def states_by_document(backbone: Backbone, layouts: list) -> dict[int, torch.Tensor]:
    found = {}
    for layout in layouts:
        parts = backbone(layout).split(layout.lengths_N.tolist())
        found.update(zip(layout.documents, parts, strict=True))
    return found


@pytest.mark.usefixtures("norms_in_float64")
@EVERY_PAIR
def test_packed_equals_padded_equals_the_plain_model_in_float64(
    folders: dict[str, Path], architecture: str, causal: bool
) -> None:
    backbone = load_backbone(folders[architecture], causal=causal, dtype=torch.float64).eval()
    texts = documents()
    with torch.no_grad():
        in_packs = states_by_document(backbone, pack(texts, 32, 96, 0))
        in_padding = states_by_document(backbone, pad(texts, 96, 0))
        for number, text in enumerate(texts):
            states_LD = alone(backbone, text)
            assert states_LD.shape[1] == backbone.hidden_size
            torch.testing.assert_close(in_packs[number], states_LD, rtol=0, atol=1e-9)
            torch.testing.assert_close(in_padding[number], states_LD, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("norms_in_float64")
@EVERY_PAIR
def test_gradients_of_packed_and_padded_equal_those_of_the_plain_model(
    folders: dict[str, Path], architecture: str, causal: bool
) -> None:
    gradients = []
    for lay in (lambda t: pack(t, 32, 96, 0), lambda t: pad(t, 96, 0), None):
        backbone = load_backbone(folders[architecture], causal=causal, dtype=torch.float64)
        texts = documents()
        found = states_by_document(backbone, lay(texts)) if lay else {i: alone(backbone, texts[i]) for i in range(7)}
        generator = torch.Generator().manual_seed(3)
        weights = torch.randn(len(found), backbone.hidden_size, dtype=torch.float64, generator=generator)
        sum((found[i].mean(0) * weights[i]).sum() for i in range(len(found))).backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == gradients[2].keys() and len(gradients[0]) > 10
    for name, gradient in gradients[2].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=0, atol=1e-8, msg=name)
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-8, msg=name)


@EVERY_PAIR
def test_a_document_does_not_depend_on_its_neighbors_in_float32(
    folders: dict[str, Path], architecture: str, causal: bool
) -> None:
    backbone = load_backbone(folders[architecture], causal=causal, dtype=torch.float32).eval()
    texts, others = documents(0), documents(1)
    mixed = [texts[0], *others[1:]]
    with torch.no_grad():
        first = states_by_document(backbone, pack(texts, 64, 128, 0))[0]
        second = states_by_document(backbone, pack(mixed, 64, 128, 0))[0]
    assert torch.equal(first, second)


@pytest.mark.usefixtures("norms_in_float64")
@pytest.mark.parametrize(("architecture", "causal"), [("mistral", True), ("mistral", False), ("t5gemma", False)])
def test_a_window_longer_than_the_probe_looks(tmp_path: Path, architecture: str, causal: bool) -> None:
    """Beyond 2,048 tokens the probe does not measure it: our masks against the library's, where the window cuts."""
    folder = write_tiny(tmp_path, architecture, layers=1, window=2100)
    backbone = load_backbone(folder, causal=causal, dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(2)
    text, neighbor = (Tokens(torch.randint(4, 390, (n,), generator=generator).tolist()) for n in (2300, 40))
    with torch.no_grad():
        found = states_by_document(backbone, pack([text, neighbor], 2340, 2340, 0))[0]
        torch.testing.assert_close(found, alone(backbone, text), rtol=0, atol=1e-9)
        # The window does cut: without it the last token's state is another.
        backbone.reach = None
        assert not torch.allclose(states_by_document(backbone, pack([text], 2340, 2340, 0))[0][-1], found[-1])


@EVERY_PAIR
def test_bf16_packed_stays_close_to_padded(folders: dict[str, Path], architecture: str, causal: bool) -> None:
    backbone = load_backbone(folders[architecture], causal=causal, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        a = states_by_document(backbone, pack(documents(), 32, 96, 0))
        b = states_by_document(backbone, pad(documents(), 96, 0))
    cosines = torch.stack(
        [torch.cosine_similarity(a[i].float().mean(0), b[i].float().mean(0), dim=0) for i in range(len(a))]
    )
    # bf16 keeps 8 bits; sums in another order differ in the last ones, and random layers spread that.
    assert cosines.min() > 0.997 and cosines.mean() > 0.999


@pytest.mark.parametrize("causal", [True, False])
def test_the_window_is_halved_for_bidirectional_gemma(tmp_path: Path, causal: bool) -> None:
    write_tiny(tmp_path, "gemma3", window=8)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.sliding_window == 8
    backbone = load_backbone(tmp_path, causal=causal, dtype=torch.float32)
    # transformers: exclusive bounds, window // 2 + 1 to either side.
    assert backbone.config.sliding_window == (8 if causal else 5)


@EVERY_PAIR
def test_a_saved_model_reloads_with_the_same_attention(
    folders: dict[str, Path], architecture: str, causal: bool, tmp_path: Path
) -> None:
    from sentence_transformers.base.modules.transformer import Transformer

    backbone = load_backbone(folders[architecture], causal=causal, dtype=torch.float64).eval()
    text = documents()[4]
    ours = backbone(pad([text], 64, 0)[0])
    backbone.save_pretrained(tmp_path, torch.float64)
    again = load_backbone(tmp_path, causal=causal, dtype=torch.float64).eval()
    torch.testing.assert_close(again(pad([text], 64, 0)[0]), ours, rtol=0, atol=1e-12)
    # The library that most people open it with, in its own attention.
    tiny_tokenizer().save_pretrained(tmp_path)
    plain = Transformer(str(tmp_path), model_kwargs={"dtype": torch.float64}).auto_model.eval()
    theirs = plain(input_ids=torch.tensor([text.ids])).last_hidden_state[0]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


@EVERY_PAIR
def test_gradient_checkpointing_changes_no_gradient(folders: dict[str, Path], architecture: str, causal: bool) -> None:
    gradients = []
    for checkpointing in (False, True, "selective"):
        backbone = load_backbone(folders[architecture], causal=causal, dtype=torch.float64).train()
        if checkpointing:
            backbone.use_gradient_checkpointing(checkpointing)
        sum(
            states.pow(3).sum() for states in states_by_document(backbone, pack(documents(), 32, 96, 0)).values()
        ).backward()
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    for plain, *others in zip(*gradients, strict=True):
        for checkpointed in others:
            torch.testing.assert_close(plain, checkpointed, rtol=0, atol=1e-12)


class Products(TorchDispatchMode):
    """Counts matrix products of the decoder's own size; an adapter's second one has its rank inside."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return func(*args, **(kwargs or {}))


def bytes_alive_after(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """What the CPU's allocator gave out in `work` and has not back, and what `work` gave."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        value = work()
    return sum(event.self_cpu_memory_usage for event in found.key_averages()), value


def test_selective_checkpointing_keeps_less_and_computes_no_large_product_again(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_of_backbone, "_MIN_INNER_SIZE", 1)  # the tiny model's products are all small
    alive, products = {}, {}
    for how in (False, True, "selective"):
        backbone = load_backbone(folders["gemma3"], causal=True, dtype=torch.float32).train()
        backbone.use_gradient_checkpointing(how)
        layout = pack(documents(), 32, 96, 0)[0]
        with Products() as counted:
            alive[how], value = bytes_alive_after(lambda b=backbone, x=layout: b(x).pow(3).sum())
            value.backward()
        products[how] = counted.count
    assert products[False] == products["selective"] < products[True]
    assert alive[True] < alive["selective"] < 0.8 * alive[False]


@pytest.mark.slow
def test_compiled_layers_keep_less_where_they_are_asked_to(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`aot_eager` plans what is kept as `inductor` does, and compiles nothing."""
    trace_only(monkeypatch)
    kept, gradients = [], []
    for selective in (False, True):
        torch._dynamo.reset()
        backbone = load_backbone(folders["gemma3"], causal=True, dtype=torch.float64).train()
        if selective:
            backbone.use_gradient_checkpointing("selective")
        backbone.compile_layers()
        found: dict[int, int] = {}

        def keep(x: Tensor, found: dict[int, int] = found) -> Tensor:
            found[x.data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            value = backbone(pack(documents(), 32, 96, 0)[0]).pow(3).sum()
        value.backward()
        kept.append(sum(found.values()))
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    assert kept[1] < 0.8 * kept[0]
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=0, atol=1e-10)
