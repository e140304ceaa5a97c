"""A packed decoder with merged attention equals T5Gemma 2's on each document alone, in values and gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch
from float64_norms import use_float64_norms
from t5gemma2_pair import LibraryPair, library_name
from tiny_model import write_tiny
from torch import Tensor
from traced import trace_only

from gemma4vec.errors import InputError
from gemma4vec.model.backbone.backbone import Backbone, load_backbone
from gemma4vec.model.denoiser.decoder import Decoder
from gemma4vec.model.denoiser.layout import fit_pairs, lay_out_decoder
from gemma4vec.model.packing.packed_batch import Tokens, pack, pad
from gemma4vec.recipe import denoising

# Tokens of both sides of each document; the window of the tiny model has 8.
LENGTHS = [(17, 3), (2, 30), (1, 1), (9, 12), (20, 21), (4, 2), (3, 11)]
SHORT = [(4, 9), (2, 14), (3, 1)]  # no token is more than 3 before or behind another, which both windows reach


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3")


def texts(lengths: list[tuple[int, int]]) -> tuple[list[Tokens], list[Tokens]]:
    generator = torch.Generator().manual_seed(0)
    found = [[Tokens(torch.randint(4, 390, (n,), generator=generator).tolist()) for n in pair] for pair in lengths]
    return [one for one, _ in found], [other for _, other in found]


def settings_of(**values: Any) -> denoising.Decoder:
    return denoising.Decoder.model_validate(values)


def pair_of(folder: Path, dtype: torch.dtype = torch.float64, **settings: Any) -> tuple[Backbone, Decoder]:
    """An encoder, and a decoder that has been trained away from it."""
    backbone = load_backbone(folder, causal=False, dtype=dtype)
    decoder = Decoder(backbone, settings_of(**settings))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in decoder.own.values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return backbone, decoder


def run(backbone: Backbone, decoder: Decoder, lengths: list[tuple[int, int]], packed: bool) -> dict[int, Tensor]:
    """The decoder's states of each document."""
    read, written = texts(lengths)
    layouts = pack(read, 32, 64, 0) if packed else pad(read, 64, 0)
    encoded, first = {}, 0
    for layout in layouts:
        for document, length in zip(layout.documents, layout.lengths_N.tolist(), strict=True):
            encoded[document] = (first, length)
            first += length
    states_TD = torch.cat([backbone(layout) for layout in layouts])
    places = [encoded[document] for document in range(len(read))]
    found = {}
    for one in lay_out_decoder(written, places, row_tokens=32, tokens_per_forward=96, padding_id=0, packed=packed):
        parts = decoder(one, states_TD, backbone).split(one.tokens.lengths_N.tolist())
        found.update(zip(one.tokens.documents, parts, strict=True))
    return found


def weighted(states: dict[int, Tensor]) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    total = torch.zeros((), dtype=states[0].dtype)
    for number in range(len(states)):
        weights = torch.randn(states[number].shape, dtype=states[0].dtype, generator=generator)
        total = total + (states[number] * weights).sum()
    return total


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("layers", ["all", 2])
def test_values_and_gradients_equal_the_librarys_on_each_document_alone(
    folder: Path, packed: bool, layers: str | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_float64_norms(monkeypatch)
    backbone, decoder = pair_of(folder, layers=layers)
    library = LibraryPair(backbone, decoder)
    found = run(backbone, decoder, LENGTHS, packed)
    read, written = texts(LENGTHS)
    expected = {n: library(list(read[n].ids), list(written[n].ids)) for n in range(len(LENGTHS))}
    for number, states in expected.items():
        torch.testing.assert_close(found[number], states, rtol=0, atol=1e-9)
    weighted(found).backward()
    weighted(expected).backward()
    theirs = [{name: p.grad for name, p in side.named_parameters()} for side in (library.encoder, library.decoder)]
    ours = [backbone.model.named_parameters(), decoder.named_parameters()]
    compared = 0
    for parameters, gradients in zip(ours, theirs, strict=True):
        for name, parameter in parameters:
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad, gradients[library_name(name)], rtol=0, atol=1e-8, msg=name)
            compared += 1
    assert compared == 2 + 13 * 3 + 1 + 13 * len(decoder.layers)  # embeddings and norm, layers, norm, layers


@pytest.mark.parametrize("settings", [{"lora": {"rank": 4}}, {"shared": True}])
def test_other_decoders_equal_the_librarys_with_their_weights(
    folder: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the library makes its encoder's masks itself: texts are shorter than the window."""
    use_float64_norms(monkeypatch)
    backbone, decoder = pair_of(folder, **settings)
    library = LibraryPair(backbone, decoder, own_masks=True)
    found = run(backbone, decoder, SHORT, True)
    read, written = texts(SHORT)
    for number in range(len(SHORT)):
        expected = library(list(read[number].ids), list(written[number].ids))
        torch.testing.assert_close(found[number], expected, rtol=0, atol=1e-9)
    trained = {name.rsplit(".", 3)[1] for name in decoder.own}
    assert trained == (set() if "shared" in settings else {"lora_A", "lora_B"})


def test_frozen_weights_are_the_encoders_own_and_trained_ones_are_copies(folder: Path) -> None:
    backbone = load_backbone(folder, causal=False, dtype=torch.float32)
    held = {id(parameter) for parameter in backbone.parameters()}
    assert not held & {id(parameter) for parameter in Decoder(backbone, settings_of()).parameters()}
    # A base that is trained must not change what the decoder holds frozen.
    frozen = Decoder(backbone, settings_of(lora={"rank": 2}))
    assert not held & {id(parameter) for parameter in frozen.parameters()} and len(frozen.own) == 2 * 7 * 3
    backbone.requires_grad_(False)
    shared = Decoder(backbone, settings_of(lora={"rank": 2}))
    assert held >= {id(p) for name, p in shared.named_parameters() if "lora_" not in name}
    assert {p.dtype for p in shared.own.values()} == {torch.float32}
    before = torch.get_rng_state()
    again = Decoder(backbone, settings_of(lora={"rank": 2}))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, again.own[name]) for name, value in shared.own.items())


@pytest.mark.parametrize("checkpointing", [True, "selective"])
def test_gradients_under_checkpointing(folder: Path, checkpointing: Any) -> None:
    gradients = []
    for how in (False, checkpointing):
        backbone, decoder = pair_of(folder, torch.float32)
        backbone.train()
        backbone.use_gradient_checkpointing(how)
        weighted(run(backbone, decoder, LENGTHS, True)).backward()
        gradients.append({name: p.grad for name, p in [*backbone.named_parameters(), *decoder.named_parameters()]})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("settings", [{}, {"lora": {"rank": 2}}])
def test_compiled_layers_have_the_same_values_and_gradients(
    folder: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_only(monkeypatch)
    use_float64_norms(monkeypatch)
    found = []
    for compiled in (False, True):
        backbone, decoder = pair_of(folder, layers=2, **settings)
        if compiled:
            decoder.compile_layers(backbone)
        states = run(backbone, decoder, LENGTHS, True)
        weighted(states).backward()
        found.append([*states.values(), *(parameter.grad for parameter in decoder.own.values())])
        torch.compiler.reset()
    for plain, other in zip(*found, strict=True):
        torch.testing.assert_close(other, plain, rtol=0, atol=1e-9)


def test_rows_hold_both_sides() -> None:
    own, other = [length for length, _ in LENGTHS], [length for _, length in LENGTHS]
    rows = fit_pairs(own, other, 32)
    assert sorted(document for row in rows for document in row) == list(range(len(LENGTHS)))
    assert all(sum(side[n] for n in row) <= 32 for row in rows for side in (own, other))
    assert len(rows) == 3  # 80 tokens of one side need as many


@pytest.mark.parametrize(
    ("architecture", "settings", "message"),
    [
        ("qwen3", {}, "ul2 is verified for Gemma 3 alone, the base is a 'qwen3'"),
        ("gemma4_text", {}, "ul2 is verified for Gemma 3 alone, the base is a 'gemma4_text'"),
        ("gemma3", {"layers": 4}, "decoder.layers: 4 requested, the base has 3 layers"),
        ("gemma3", {"lora": {"modules": ["w"]}}, "decoder.lora.modules: the base has no 'w'; it has down_proj"),
        ("gemma3", {"lora": {"last_layers": 9}}, "decoder.lora.last_layers: 9 requested, the base has 3 layers"),
    ],
)
def test_what_cannot_be_a_decoder(tmp_path: Path, architecture: str, settings: dict[str, Any], message: str) -> None:
    backbone = load_backbone(write_tiny(tmp_path, architecture), causal=False, dtype=torch.float32)
    with pytest.raises(InputError) as refused:
        Decoder(backbone, settings_of(**settings))
    assert str(refused.value).startswith(message)
