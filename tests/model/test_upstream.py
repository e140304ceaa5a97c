"""Contracts of the private and unstable APIs that `model.upstream` lists: each exists and does what we rely on."""

import inspect
import json
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from tiny_model import BUILDERS, tiny_tokenizer
from torch import Tensor, nn
from torch._dynamo import config as dynamo
from torch._subclasses import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, BertConfig, Gemma3TextConfig, Gemma3TextModel
from transformers.integrations import flex_attention as library_flex

from gemma4vec.model import upstream
from gemma4vec.model.backbone.architectures import ARCHITECTURES
from gemma4vec.model.upstream import TESTED_VERSIONS, UPSTREAM

ROOT = Path(__file__).resolve().parents[2]
Contract = Callable[[pytest.MonkeyPatch, Path], None]
CONTRACTS: dict[str, Contract] = {}


def contract(name: str) -> Callable[[Contract], Contract]:
    """The test of the API with this name in `UPSTREAM`."""

    def add(test: Contract) -> Contract:
        CONTRACTS[name] = test
        return test

    return add


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_every_api_has_a_contract() -> None:
    names = [api.name for api in UPSTREAM]
    assert len(names) == len(set(names))
    assert set(names) == set(CONTRACTS)
    assert {api.library for api in UPSTREAM} <= set(TESTED_VERSIONS)


@pytest.mark.parametrize("name", [api.name for api in UPSTREAM])
def test_contract(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    CONTRACTS[name](monkeypatch, tmp_path)


@pytest.mark.parametrize("library", sorted(TESTED_VERSIONS))
def test_versions_are_those_of_the_project(library: str) -> None:
    """From the lower bound in pyproject.toml to the version in constraints.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {requirement.name: requirement for requirement in map(Requirement, project["dependencies"])}
    (lowest,) = (Version(part.version) for part in bounds[library].specifier if part.operator == ">=")
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    (newest,) = (Version(line.split("==")[1].split()[0]) for line in pins if line.startswith(f"{library}=="))
    oldest_tested, newest_tested = map(Version, TESTED_VERSIONS[library])
    assert oldest_tested.release[:2] == lowest.release[:2]
    assert newest_tested.release[:2] == newest.release[:2]


def text_model(architecture: str = "gemma3", layers: int = 2) -> Any:
    """The text model of a tiny random language model."""
    torch.manual_seed(0)
    whole: Any = BUILDERS[architecture](layers, 8)
    return whole.model


def run(model: nn.Module) -> Tensor:
    states: Tensor = model(input_ids=torch.arange(5, 13)[None], use_cache=False).last_hidden_state
    return states


# torch


@contract("torch._dynamo.exc")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler")

    with pytest.raises(upstream.compiler_errors()):
        torch.compile(lambda x: x + 1, backend=broken)(torch.ones(2))
    torch.compiler.reset()
    double = torch.compile(lambda x: x * 2, backend="eager", dynamic=False, fullgraph=True)
    with dynamo.patch(recompile_limit=1), pytest.raises(upstream.recompile_errors()) as caught:
        for size in (2, 3):
            double(torch.ones(size))
    assert not isinstance(caught.value, upstream.compiler_errors())  # so both must be named


@contract("torch._dynamo.config")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append([str(node.meta.get("val", "")) for node in graph.graph.nodes if node.op == "placeholder"])
        return graph

    scaled = torch.compile(lambda x, factor: x * factor, backend=count, fullgraph=True)
    with dynamo.patch(recompile_limit=1, specialize_float=False, fake_tensor_cache_enabled=True):
        upstream.set_compiler_limits(recompile_limit=4)
        assert not FakeTensorMode().cache_enabled
        for factor in (2.0, 3.0, 4.0):
            assert torch.equal(scaled(torch.ones(2), factor), torch.full((2,), factor))
        upstream.set_compiler_limits(recompile_limit=2)
        assert dynamo.recompile_limit == 4
    assert len(graphs) == 3 and all(len(inputs) == 1 for inputs in graphs)  # each factor is a constant of its graph


@contract("torch._functorch.config.activation_memory_budget")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    """A smaller budget keeps less for the backward pass."""

    def kept(budget: float) -> int:
        torch.compiler.reset()
        layer = torch.compile(lambda x: (x @ x).sin().exp().cos().tanh() @ x, backend="aot_eager")
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        x = torch.randn(64, 64, requires_grad=True)
        with upstream.activation_memory_budget(budget), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            layer(x).sum()
        return sum(sizes.values())

    assert kept(0.0) < kept(1.0)


@contract("torch._functorch.config.autograd_cache_allow_custom_autograd_functions")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    from torch._functorch import config

    if not hasattr(config, "autograd_cache_allow_custom_autograd_functions"):
        upstream.cache_custom_gradients()  # nothing to set, and no error
        return
    with config.patch(autograd_cache_allow_custom_autograd_functions=False):
        upstream.cache_custom_gradients()
        assert config.autograd_cache_allow_custom_autograd_functions is True


@contract("torch._inductor.runtime.cache_dir_utils.default_cache_dir")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    """It is the folder that torch writes into the environment where nothing is set."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    cache_dir()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == upstream.default_compile_cache()


@contract("torch._foreach_copy_")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    targets = [torch.zeros(3), torch.zeros(2, dtype=torch.bfloat16)]
    sources = [torch.full((3,), 1.5, dtype=torch.bfloat16), torch.tensor([0.1, 3.0])]
    upstream.copy_tensors(targets, sources)
    for target, source in zip(targets, sources, strict=True):
        assert torch.equal(target, source.to(target.dtype))


@contract("torch.nn.Module._compiled_call_impl")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    calls: list[Any] = []
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    layers[0].register_forward_hook(lambda *_: calls.append("hook"))
    layers[1].compile(backend="eager")
    x = torch.ones(1, 2)
    plain = layers[1](layers[0](x))
    compiled = layers[1]._compiled_call_impl
    assert compiled is not None

    def wrap(number: int, call: Callable[..., Any]) -> Callable[..., Any]:
        assert number == 0 or call is compiled
        return lambda *inputs: (calls.append(number), call(*inputs))[1]

    calls.clear()
    with pytest.raises(ZeroDivisionError), upstream.wrapped_calls(layers, wrap):
        assert torch.equal(layers[1](layers[0](x)), plain)
        raise ZeroDivisionError
    assert calls == [0, "hook", 1]  # a wrapped layer still runs its hooks
    layers[1](layers[0](x))
    assert calls == [0, "hook", 1, "hook"] and layers[1]._compiled_call_impl is compiled
    upstream.drop_compiled_call(layers[1])
    assert layers[1]._compiled_call_impl is None and torch.equal(layers[1](layers[0](x)), plain)


# transformers


@contract("transformers.PreTrainedConfig._attn_implementation")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    """Layers look the function up by this name in each forward pass."""
    called = []

    def counting(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **settings: Any) -> Any:
        called.append(query.shape[1] // key.shape[1])  # query heads of a key head: keys and values are not repeated
        return upstream.sdpa_attention()(module, query, key, value, mask, **settings)

    AttentionInterface.register("gemma4vec_contract", counting)
    model = text_model()
    upstream.set_attention_function(model.config, "sdpa")
    plain = run(model)
    assert called == []
    upstream.set_attention_function(model.config, "gemma4vec_contract")
    assert upstream.attention_function_name(model.config) == "gemma4vec_contract"
    mask = {"full_attention": None, "sliding_attention": None}
    states = model(input_ids=torch.arange(5, 13)[None], attention_mask=mask, use_cache=False).last_hidden_state
    assert called == [2, 2] and states.shape == plain.shape


def heads(*shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(3)]


@contract("transformers.integrations.sdpa_attention.sdpa_attention_forward")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    """`[R, H, C, D]` with a boolean mask to `[R, C, H, D]`, key heads repeated by the function."""
    query, key, value = heads(2, 4, 6, 8)
    key, value = key[:, :2], value[:, :2]
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    module = SimpleNamespace(num_key_value_groups=2, is_causal=False, training=False)
    found, weights = upstream.sdpa_attention()(module, query, key, value, mask, scaling=0.3)
    key, value = (x.repeat_interleave(2, dim=1) for x in (key, value))
    wanted = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3).transpose(1, 2)
    assert weights is None
    torch.testing.assert_close(found, wanted)


@contract("transformers.integrations.flex_attention.flex_attention_forward")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    """The same, by a block mask."""
    from gemma4vec.model.backbone.attention import block_mask

    monkeypatch.setattr(library_flex, "is_torchdynamo_compiling", lambda: True)  # so that it does not compile itself
    query, key, value = heads(2, 4, 6, 8)
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    module = SimpleNamespace(num_key_value_groups=1, is_causal=False, training=False)
    with torch.no_grad():
        found, _ = upstream.flex_attention()(module, query, key, value, block_mask(mask), scaling=0.3)
    wanted = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3).transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@contract("transformers.PreTrainedModel._supports_sdpa")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    assert upstream.supports_sdpa(Gemma3TextModel)
    encoder = upstream.library_class("t5gemma.modeling_t5gemma:T5GemmaEncoder")
    assert not upstream.supports_sdpa(encoder)  # it caps scores


@contract("transformers.PreTrainedModel._from_config")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    config = text_model().config
    with torch.device("meta"):
        model = upstream.model_from_config(Gemma3TextModel, config, dtype=torch.bfloat16, attention="eager")
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    assert upstream.attention_function_name(model.config) == "eager"


@contract("transformers.models.auto.modeling_auto.MODEL_MAPPING")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    class OwnConfig(Gemma3TextConfig):
        pass

    assert upstream.text_model_class(Gemma3TextConfig()) is Gemma3TextModel
    assert upstream.text_model_class(OwnConfig()) is None
    assert upstream.is_masked_language_model(BertConfig.model_type)
    assert not any(upstream.is_masked_language_model(kind) for kind in ("llama", "gemma3_text", "qwen3"))


@contract("transformers.models.t5gemma")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    paths = [one.tower_class for one in ARCHITECTURES.values() if one.tower_class is not None]
    assert len(paths) == 2
    for path in paths:
        found = upstream.library_class(path)
        assert issubclass(found, nn.Module) and found.__name__ == path.split(":")[1]


@contract("transformers.modeling_layers.GradientCheckpointingLayer._gradient_checkpointing_func")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    model = text_model().train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    seen = []

    def wrap(checkpoint: Callable[..., Any]) -> Callable[..., Any]:
        def called(call: Callable[..., Any], *inputs: Any) -> Any:
            seen.append(isinstance(inputs[0], Tensor))  # the states come first, by position
            return checkpoint(call, *inputs)

        return called

    for layer in model.layers:
        upstream.wrap_checkpointing(layer, wrap)
    run(model).sum().backward()
    assert seen == [True, True]
    model.layers[0].gradient_checkpointing = False  # switches one layer off
    run(model)
    assert len(seen) == 3


@contract("transformers.models.*.rotate_half")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    for architecture in ("gemma3", "llama", "mistral", "qwen3"):
        model = text_model(architecture)
        own = upstream.rotate_half_of(model)
        assert own is not None
        assert own(torch.arange(4.0)).tolist() == [-2.0, -3.0, 0.0, 1.0]
        calls: list[int] = []
        plain = run(model)
        try:
            upstream.set_rotate_half(model, lambda x, own=own, calls=calls: (calls.append(1), own(x))[1])  # type: ignore[misc]
            assert torch.equal(run(model), plain)
        finally:
            upstream.set_rotate_half(model, own)
        assert len(calls) == 4, architecture  # query and key of two layers
    assert upstream.rotate_half_of(nn.Linear(1, 1)) is None


@contract("transformers.activations.GELUTanh")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    found = [module for module in text_model().modules() if upstream.is_tanh_gelu(module)]
    assert len(found) == 2
    x = torch.linspace(-3, 3, 20)
    torch.testing.assert_close(found[0](x), nn.functional.gelu(x, approximate="tanh"))
    assert not upstream.is_tanh_gelu(nn.GELU())


@contract("transformers decoder layer: forward and past_key_values.update")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    """A layer takes these names, hands keys and values `[R, K, C, D]` to `update`, and attends to what it returns."""
    for kind, architecture in ARCHITECTURES.items():
        if not architecture.caches_keys:
            continue
        model = text_model({"gemma3_text": "gemma3"}.get(kind, kind))
        updates = []

        class Cache:
            def update(
                self, keys: Tensor, values: Tensor, *_: Any, updates: list[Any] = updates, **__: Any
            ) -> tuple[Tensor, Tensor]:
                updates.append((keys.shape, values.shape))
                return keys, torch.zeros_like(values)

        def forward(states: Tensor, *, attention_mask: Any, position_embeddings: Any, **settings: Any) -> Any:
            named = settings | {"attention_mask": attention_mask, "position_embeddings": position_embeddings}
            named["past_key_values"] = Cache()
            return own(states, **named)  # noqa: B023

        own = upstream.replace_forward(model.layers[-1], forward)
        plain = run(text_model({"gemma3_text": "gemma3"}.get(kind, kind)))
        assert not torch.equal(run(model), plain), kind  # the values are those that update returned
        assert updates == [(torch.Size([1, 2, 8, 8]),) * 2], kind


@contract("transformers.PreTrainedTokenizerBase._processor_class")
def _(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for forget in (False, True):
        tokenizer = tiny_tokenizer()
        tokenizer._processor_class = "Gemma3Processor"
        if forget:
            upstream.forget_processor(tokenizer)
        tokenizer.save_pretrained(folder / str(forget))
        saved = json.loads((folder / str(forget) / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert saved.get("processor_class") == (None if forget else "Gemma3Processor")


# peft and sentence-transformers


@contract("peft.tuners.tuners_utils.BaseTunerLayer._disable_adapters")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    plain: Any = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    x = torch.randn(3, 4)
    wanted = plain(x)
    model = get_peft_model(plain, LoraConfig(r=2, target_modules=["0", "1"], init_lora_weights=False))
    adapted = model(x)
    before = upstream.switch_adapters(model)
    assert before == [False, False] and torch.equal(model(x), wanted) and not torch.equal(adapted, wanted)
    assert [name for name, value in model.named_parameters() if value.requires_grad and "lora_" in name]
    assert upstream.switch_adapters(model, before) == [True, True] and torch.equal(model(x), adapted)


@contract("peft.tuners.lora.layer.Linear")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    from peft.tuners.lora.layer import Linear

    class Scaled(Linear):
        def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
            (name,) = self.active_adapters
            update = self.lora_B[name].weight @ self.lora_A[name].weight * self.scaling[name]
            return x @ (self.base_layer.weight + update).T + self.base_layer.bias

    model: Any = nn.Sequential(nn.Linear(4, 6))
    model = get_peft_model(model, LoraConfig(r=2, lora_alpha=6, target_modules=["0"], init_lora_weights=False))
    (layer,) = (module for module in model.modules() if type(module) is Linear)
    (name,) = layer.active_adapters
    assert layer.merged is False and not layer.lora_variant
    assert isinstance(layer.lora_dropout[name], nn.Identity) and isinstance(layer.base_layer, nn.Linear)
    x, parameters = torch.randn(3, 4), dict(model.named_parameters())
    plain = layer(x)
    upstream.change_class(layer, Scaled)
    assert type(layer) is Scaled and dict(model.named_parameters()) == parameters
    torch.testing.assert_close(layer(x), plain)
    torch.testing.assert_close(model.merge_and_unload()(x), plain)  # merging is still peft's
    with pytest.raises(TypeError, match="no subclass"):
        upstream.change_class(nn.ReLU(), Scaled)


@contract("sentence_transformers.base.modules.InputModule")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    from sentence_transformers.base.modules import InputModule

    from gemma4vec.model.sentence_transformers_module import Gemma4VecEncoder

    assert issubclass(Gemma4VecEncoder, InputModule)
    assert not Gemma4VecEncoder.__abstractmethods__  # all that the library asks for is there
    names = set(inspect.signature(InputModule.load).parameters)
    assert {"model_name_or_path", "subfolder", "token", "cache_folder", "revision", "local_files_only"} <= names
    assert callable(InputModule.load_dir_path)


@contract("sentence_transformers.sentence_transformer.modules")
def _(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

    pooling = Pooling(4, pooling_mode="weightedmean", include_prompt=False)
    assert pooling.get_embedding_dimension() == 4 and not pooling.include_prompt
    dense = Dense(4, 3, bias=False, activation_function=None)
    assert dense.linear.weight.shape == (3, 4) and dense.linear.bias is None
    states = torch.randn(2, 5, 4)
    features = {"token_embeddings": states, "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    vectors = Normalize()(dense(pooling(features)))["sentence_embedding"]
    mean = torch.einsum("c,rcd->rd", torch.arange(1.0, 6.0), states) / 15
    torch.testing.assert_close(vectors, nn.functional.normalize(mean @ dense.linear.weight.T, dim=-1))
