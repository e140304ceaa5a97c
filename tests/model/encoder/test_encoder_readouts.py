"""Every readout in the whole encoder: packed equals padded equals each text alone, in values and gradients.

"Alone" is the transformers model called as its documentation shows, without our masks or layouts, and the readout's
formula written once more, in float64.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from float64_norms import use_float64_norms
from sentence_transformers import SentenceTransformer
from tiny_context import write_context
from tiny_model import write_tiny
from torch import Tensor
from torch.nn import functional

from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.packing.packed_batch import pack, pad
from gemma4vec.model.readout import READOUTS
from gemma4vec.recipe.schema import Model
from gemma4vec.text.prompts import Prompted

LIMIT = 24
P = "title: none | text: "
TEXTS = [
    Prompted(P, "sort the tree"),
    Prompted("", "read a file"),
    Prompted(P, ""),
    Prompted("", ""),
    Prompted(P, "def read(path): return open(path) and close the file again " * 3),
    Prompted("q: ", "value of key"),
]
READ: list[dict[str, Any]] = [
    {"name": "last_token"},
    {"name": "first_token"},
    {"name": "mean", "pool_prompt": False},
    {"name": "weighted_mean"},
    {"name": "attention", "heads": 4, "pool_prompt": False},
    {"name": "latent_attention", "latents": 32, "heads": 4},
    {"name": "contextual_token", "hidden_size": 10},
    {"name": "layer_mix"},
    {"name": "echo_delta"},
    {"name": "echo_delta", "join": "concat", "separator": " again: "},
]


@pytest.fixture(autouse=True)
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    use_float64_norms(monkeypatch)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("readouts")
    found = {
        architecture: write_tiny(root / architecture, architecture, layers=2) for architecture in ("gemma3", "llama")
    }
    return found | {"context": write_context(root / "context")}


def made(folders: dict[str, Path], architecture: str, attention: str, readout: dict[str, Any]) -> EmbeddingModel:
    if readout["name"] == "contextual_token":
        readout = readout | {"encoder": str(folders["context"])}
    tree = {
        "base": architecture,
        "attention": attention,
        "readout": readout,
        "lora": {"rank": 2},
        "head": {"widths": [9]},
    }
    built = build(Model.model_validate(tree), folders[architecture], dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in built.trainable().values():  # nothing at zero, where half of the gradients would be zero
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return built


class Alone:
    """The vector of one text, from the tokenizer and the plain model."""

    def __init__(self, built: EmbeddingModel):
        self.built = built
        self.model = built.encoder.backbone.model
        self.readout = built.encoder.readout
        self.settings = self.readout.settings
        self.tokenizer = built.tokenizer.hf_tokenizer

    def ids(self, text: str, limit: int) -> list[int]:
        return list(self.tokenizer(text, truncation=True, max_length=limit)["input_ids"])

    def states(self, ids: list[int] | None = None, embeddings: Tensor | None = None) -> Tensor:
        """`[L + 1, T, D]`."""
        given = {"input_ids": torch.tensor([ids])} if embeddings is None else {"inputs_embeds": embeddings[None]}
        return torch.cat(self.model(**given, use_cache=False, output_hidden_states=True).hidden_states)

    def __call__(self, text: Prompted) -> Tensor:
        pooled = getattr(self, f"_{self.settings.name}", self._from_states)(text)
        (linear,) = self.built.encoder.head or ()
        return functional.normalize(linear.weight @ pooled, dim=0)

    def kept(self, text: Prompted, length: int) -> slice:
        prompt = len(self.tokenizer(text.prompt)["input_ids"]) if text.prompt else 0
        return slice(0 if self.readout.pool_prompt or prompt >= length else prompt, None)

    def _from_states(self, text: Prompted) -> Tensor:
        ids = self.ids(text.prompt + text.text, LIMIT)
        states = self.states(ids)
        kept = self.kept(text, len(ids))
        parameters = dict(self.readout.named_parameters())
        if self.settings.name == "last_token":
            assert ids[-1] == 1 and ids.count(1) == 1 and len(ids) <= LIMIT
            return states[-1, -1]
        if self.settings.name == "first_token":
            return states[-1, 0]
        if self.settings.name == "mean":
            return states[-1, kept].mean(0)
        if self.settings.name == "weighted_mean":
            weights = torch.arange(1.0, len(ids) + 1, dtype=torch.float64)[kept]
            return weights @ states[-1, kept] / weights.sum()
        if self.settings.name == "attention":
            heads = self.settings.heads
            keys = states[-1, kept].view(-1, heads, 32 // heads)
            scores = (keys * parameters["query_D"].view(heads, -1)).sum(-1) / (32 // heads) ** 0.5
            return (scores.softmax(0)[:, :, None] * keys).sum(0).flatten()
        if self.settings.name == "latent_attention":
            return self._latents(states[-1, kept], parameters).mean(0)
        mixed = sum(
            weight * layer / (layer.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            for weight, layer in zip(parameters["weights_L"].softmax(0), states, strict=True)
        )
        return (parameters["scale"] * mixed)[kept].mean(0)

    def _latents(self, states: Tensor, w: dict[str, Tensor]) -> Tensor:
        def norm(x: Tensor, name: str) -> Tensor:
            return functional.layer_norm(x, (32,), w[f"{name}.weight"], w[f"{name}.bias"])

        latents, queries = norm(w["latents_RD"], "latent_norm"), norm(states, "query_norm") @ w["query.weight"].T
        keys, values, mixed = latents @ w["key.weight"].T, latents @ w["value.weight"].T, []
        for head in range(4):
            part = slice(8 * head, 8 * head + 8)
            mixed.append((queries[:, part] @ keys[:, part].T / 8**0.5).softmax(-1) @ values[:, part])
        states = states + torch.cat(mixed, dim=1) @ w["output.weight"].T
        inner = norm(states, "mlp_norm") @ w["mlp.up.weight"].T + w["mlp.up.bias"]
        gated = inner[:, :128] * functional.gelu(inner[:, 128:])
        return states + gated @ w["mlp.down.weight"].T + w["mlp.down.bias"]

    def _contextual_token(self, text: Prompted) -> Tensor:
        ids = self.ids(text.prompt + text.text, LIMIT - 1)
        assert ids[0] == 2 and ids[-1] == 1
        encoder = SentenceTransformer(self.settings.encoder, device="cpu").double()
        vector = torch.as_tensor(encoder.encode(text.text, convert_to_tensor=True)).clone()
        first, _, last = self.readout.get_submodule("projection").children()  # type: ignore[misc]
        token = last(functional.gelu(first(vector)))
        token = self.readout.get_parameter("size") * token / (token.square().mean() + 1e-12).sqrt()
        words = self.model.get_input_embeddings()(torch.tensor(ids))
        states = self.states(embeddings=torch.cat([words[:1], token[None], words[1:]]))[-1]
        return torch.cat([states[1], states[-1]])

    def _echo_delta(self, text: Prompted) -> Tensor:
        ids = self.ids(text.prompt + text.text, LIMIT)
        start = len(self.tokenizer(text.prompt)["input_ids"])  # BOS and the prompt
        copy = ids[start:]
        if not copy:
            start, copy = 0, ids
        between = list(self.tokenizer(self.settings.separator, add_special_tokens=False)["input_ids"])
        states = self.states([*ids, *between, *copy])[-1]
        first, second = states[start : start + len(copy)].mean(0), states[-len(copy) :].mean(0)
        difference = self.readout.get_parameter("delta") * (second - first)
        return torch.cat([second, difference]) if self.settings.join == "concat" else second + difference


def outcome(built: EmbeddingModel, vectors: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Vectors, and the gradients of a random sum of them."""
    found = vectors()
    weights = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    names, parameters = zip(*built.trainable().items(), strict=True)
    gradients = torch.autograd.grad((found * weights).sum(), parameters, allow_unused=True)
    return found.detach(), {n: g for n, g in zip(names, gradients, strict=True) if g is not None}


@pytest.mark.parametrize("architecture", ["gemma3", "llama"])
@pytest.mark.parametrize(
    ("attention", "readout"),
    [
        pytest.param(attention, readout, id="-".join([attention, *map(str, readout.values())]))
        for attention in ("causal", "bidirectional")
        for readout in READ
        if (attention, readout["name"]) != ("causal", "first_token")  # refused, see test_checks.py
    ],
)
def test_packed_equals_padded_equals_alone(
    folders: dict[str, Path], architecture: str, attention: str, readout: dict[str, Any]
) -> None:
    built = made(folders, architecture, attention, readout)
    built.encoder.eval()
    tokens = built.read(TEXTS, LIMIT)
    alone = Alone(built)
    expected, expected_gradients = outcome(built, lambda: torch.stack([alone(text) for text in TEXTS]))
    assert expected.shape == (len(TEXTS), 9) and set(expected_gradients) == set(built.trainable())
    for layouts in (pack(tokens, 64, 128, 0), pad(tokens, 128, 0)):
        found, gradients = outcome(built, lambda layouts=layouts: built.encoder(layouts))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        for name, gradient in expected_gradients.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("name", list(READOUTS))
def test_readouts_are_in_fp32_on_a_bf16_base_and_their_parameters_depend_on_the_seed_alone(
    folders: dict[str, Path], name: str
) -> None:
    readout = {"name": name} | ({"encoder": str(folders["context"])} if name == "contextual_token" else {})
    model = Model.model_validate({"base": "x", "readout": readout, "lora": {"rank": 2}})
    first, again, other = (
        build(model, folders["llama"], dtype=torch.bfloat16, seed=seed).trainable() for seed in (1, 1, 2)
    )
    own = {key: value for key, value in first.items() if key.startswith("readout.")}
    assert all(value.dtype == torch.float32 and torch.equal(value, again[key]) for key, value in own.items())
    if name in ("latent_attention", "contextual_token"):
        assert any(not torch.equal(value, other[key]) for key, value in own.items())
    # One seed gives one and the same adapter under every readout, so that readouts are compared, not adapters.
    plain = build(Model(base="x", lora=model.lora), folders["llama"], dtype=torch.bfloat16, seed=1).trainable()
    assert all(torch.equal(value, first[key]) for key, value in plain.items())


def test_the_second_encoder_stays_frozen_and_in_evaluation_mode(folders: dict[str, Path]) -> None:
    built = made(folders, "llama", "causal", {"name": "contextual_token"})
    built.encoder.train()
    context = built.encoder.readout.get_submodule("context")
    assert not any(module.training for module in context.modules()) and built.encoder.backbone.training
    assert not any("context." in name for name in built.trainable())
    tokens = built.read(TEXTS[:2], LIMIT)
    assert torch.equal(built.encoder(pad(tokens, 128, 0)), built.encoder(pad(tokens, 128, 0)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["contextual_token", "layer_mix", "latent_attention"])
def test_compiled_layers_give_the_same(folders: dict[str, Path], name: str) -> None:
    built = made(folders, "llama", "causal", {"name": name})
    tokens = built.read(TEXTS * 2, LIMIT)
    layouts = pack(tokens, 32, 64, 0)
    assert any(layout.compilable for layout in layouts)
    expected, expected_gradients = outcome(built, lambda: built.encoder(layouts))
    built.encoder.backbone.compile_layers()
    found, gradients = outcome(built, lambda: built.encoder(layouts))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for key, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[key], gradient, rtol=0, atol=1e-5, msg=key)


def test_a_context_token_enters_as_wide_as_embeddings_do(folders: dict[str, Path], tmp_path: Path) -> None:
    base = write_tiny(tmp_path, "embedding_gemma2", layers=2)
    readout = {"name": "contextual_token", "encoder": str(folders["context"])}
    model = Model.model_validate({"base": "x", "readout": readout, "lora": {"rank": 2}})
    built = build(model, base, dtype=torch.float32)
    backbone = built.encoder.backbone
    assert backbone.input_size != backbone.hidden_size
    vectors = built.encoder(pack(built.read(TEXTS, LIMIT), 64, 256, 0))
    assert vectors.shape == (len(TEXTS), 2 * backbone.hidden_size)
    vectors.square().sum().backward()
    alone = built.encoder(pad(built.read(TEXTS[:1], LIMIT), 256, 0))
    torch.testing.assert_close(vectors[:1], alone, rtol=0, atol=1e-5)
