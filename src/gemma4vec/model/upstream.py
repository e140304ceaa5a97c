"""Every private or unstable API of other libraries that gemma4vec uses, and the only file that touches one.

`UPSTREAM` lists them with the reason; the functions below are the way to reach them. `tests/model/test_upstream.py` has
a contract test for each entry, so that a new version of a library fails there, by name, and not somewhere in training.
`TESTED_VERSIONS` says between which versions the contracts hold.

transformers and torch's compiler are imported inside functions: both take seconds, which a single query need not wait
for.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

# The call or the forward pass of a layer, whose arguments depend on the model type.
LayerCall = Callable[..., Any]

# Oldest and newest minor version of each library: the lower bound of pyproject.toml and the pin of constraints.txt.
TESTED_VERSIONS: Mapping[str, tuple[str, str]] = {
    "torch": ("2.11", "2.13"),
    "transformers": ("5.23", "5.23"),
    "peft": ("0.19", "0.21"),
    "sentence-transformers": ("6.0", "6.2"),
}


@dataclass(frozen=True)
class UpstreamApi:
    """One private or unstable API.

    Attributes:
        name: dotted name in the library.
        library: distribution that it comes from, a key of `TESTED_VERSIONS`.
        use: what we do with it.
        reason: why no public API does.
    """

    name: str
    library: str
    use: str
    reason: str


UPSTREAM = (
    UpstreamApi(
        "torch._dynamo.exc",
        "torch",
        "catch errors of the compiler and run layers uncompiled",
        "torch.compiler exports no exception types",
    ),
    UpstreamApi(
        "torch._dynamo.config",
        "torch",
        "raise `recompile_limit`, set `specialize_float` and `fake_tensor_cache_enabled`",
        "torch.compiler.config has neither of the last two",
    ),
    UpstreamApi(
        "torch._functorch.config.activation_memory_budget",
        "torch",
        "selective checkpointing of compiled layers",
        "there is no public setting",
    ),
    UpstreamApi(
        "torch._functorch.config.autograd_cache_allow_custom_autograd_functions",
        "torch",
        "cache compiled graphs that contain our autograd functions",
        "there is no public setting; versions without it compile again in each process",
    ),
    UpstreamApi(
        "torch._inductor.runtime.cache_dir_utils.default_cache_dir",
        "torch",
        "tell a cache folder that the user chose from the default that torch writes into the environment",
        "the default is public nowhere",
    ),
    UpstreamApi(
        "torch._foreach_copy_",
        "torch",
        "copy hundreds of parameters in one GPU kernel",
        "copy_ has no public multi-tensor form",
    ),
    UpstreamApi(
        "torch.nn.Module._compiled_call_impl",
        "torch",
        "wrap the call of a layer, compiled or not, and undo Module.compile",
        "forward hooks break the graph of a compiled layer, and Module.compile has no inverse",
    ),
    UpstreamApi(
        "transformers.PreTrainedConfig._attn_implementation",
        "transformers",
        "choose the attention function for each forward pass",
        "set_attn_implementation walks over all submodules and is too slow for every step",
    ),
    UpstreamApi(
        "transformers.integrations.sdpa_attention.sdpa_attention_forward",
        "transformers",
        "call the library's fused attention from our own attention functions",
        "the function is not exported",
    ),
    UpstreamApi(
        "transformers.integrations.flex_attention.flex_attention_forward",
        "transformers",
        "call the library's block-sparse attention from our own attention function",
        "the function is not exported",
    ),
    UpstreamApi(
        "transformers.PreTrainedModel._supports_sdpa",
        "transformers",
        "tell which models run with fused attention",
        "there is no public property",
    ),
    UpstreamApi(
        "transformers.PreTrainedModel._from_config",
        "transformers",
        "build a model without weights on the meta device",
        "AutoModel.from_config does not know the encoders of T5Gemma",
    ),
    UpstreamApi(
        "transformers.models.auto.modeling_auto.MODEL_MAPPING",
        "transformers",
        "find the text model of a config, and refuse masked language models",
        "AutoModel looks classes up and instantiates them in one step",
    ),
    UpstreamApi(
        "transformers.models.t5gemma",
        "transformers",
        "load the encoder of a T5Gemma model alone",
        "AutoModel loads the encoder with its decoder",
    ),
    UpstreamApi(
        "transformers.modeling_layers.GradientCheckpointingLayer._gradient_checkpointing_func",
        "transformers",
        "checkpoint only the layers that have a backward pass",
        "gradient_checkpointing_enable treats all layers alike",
    ),
    UpstreamApi(
        "transformers.models.*.rotate_half",
        "transformers",
        "replace rotary embedding's half rotation by one with a cheap gradient",
        "it is a module-level function, not an attribute of the model",
    ),
    UpstreamApi(
        "transformers.activations.GELUTanh",
        "transformers",
        "find the tanh GELUs of a model to replace them",
        "the class is not exported",
    ),
    UpstreamApi(
        "transformers decoder layer: forward and past_key_values.update",
        "transformers",
        "run the last layer's queries for few tokens on keys and values of all",
        "no forward of a layer takes keys and values from outside",
    ),
    UpstreamApi(
        "transformers.PreTrainedTokenizerBase._processor_class",
        "transformers",
        "save a multimodal base's tokenizer without its image processor",
        "save_pretrained has no option for it",
    ),
    UpstreamApi(
        "peft.tuners.lora.layer.Linear",
        "peft",
        "give LoRA layers a forward pass with one matrix product",
        "LoraConfig's custom modules are experimental and keep the three products of the forward pass",
    ),
    UpstreamApi(
        "peft.tuners.tuners_utils.BaseTunerLayer._disable_adapters",
        "peft",
        "read with the base alone in the middle of a training step",
        "enable_adapters also switches requires_grad, in the middle of a step",
    ),
    UpstreamApi(
        "sentence_transformers.base.modules.InputModule",
        "sentence-transformers",
        "base class of the module that saved models name",
        "its path changed with version 6, and the older path warns",
    ),
    UpstreamApi(
        "sentence_transformers.sentence_transformer.modules",
        "sentence-transformers",
        "write models from the library's own Transformer, Pooling, Dense and Normalize",
        "its path changed with version 6, and the older path warns",
    ),
)


# torch: the compiler


def compiler_errors() -> tuple[type[Exception], ...]:
    """Exceptions of a failed compilation, for an `except` clause."""
    from torch._dynamo.exc import TorchDynamoException

    return (TorchDynamoException,)


def recompile_errors() -> tuple[type[Exception], ...]:
    """Exceptions of a failed compilation or of too many recompilations, for an `except` clause."""
    from torch._dynamo.exc import FailOnRecompileLimitHit

    return (*compiler_errors(), FailOnRecompileLimitHit)


def set_compiler_limits(recompile_limit: int) -> None:
    """Allow at least `recompile_limit` variants of a function, and make Python floats constants of the graph.

    Results of traced operators are not kept: with unknown sizes, making one again takes longer than the operator.
    """
    from torch._dynamo import config

    config.recompile_limit = max(recompile_limit, config.recompile_limit)
    config.specialize_float = True
    config.fake_tensor_cache_enabled = False


def activation_memory_budget(budget: float) -> AbstractContextManager[None]:
    """While open, graphs are compiled to keep at most this fraction of their activations for the backward pass."""
    from torch._functorch import config

    patch: AbstractContextManager[None] = config.patch(activation_memory_budget=budget)
    return patch


def cache_custom_gradients() -> None:
    """Let the compile cache hold graphs with custom autograd functions, whose source is part of the cache's key."""
    from torch._functorch import config

    if hasattr(config, "autograd_cache_allow_custom_autograd_functions"):
        config.autograd_cache_allow_custom_autograd_functions = True


def default_compile_cache() -> str:
    """The folder for compiled kernels where nobody chose one; empty for a user without a name."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    try:
        folder: str = default_cache_dir()
    except (KeyError, OSError):  # as `getpass.getuser`
        return ""
    return folder


# torch: modules and tensors


def copy_tensors(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy each source into the target at the same place, whatever their dtypes; on a GPU with one kernel."""
    torch._foreach_copy_(targets, sources)


@contextmanager
def wrapped_calls(layers: Sequence[nn.Module], wrap: Callable[[int, LayerCall], LayerCall]) -> Iterator[None]:
    """While open, calling layer i runs `wrap(i, call)`, where `call` is its own call, compiled or not."""
    unwrapped: list[Any] = [layer._compiled_call_impl for layer in layers]
    for number, (layer, call) in enumerate(zip(layers, unwrapped, strict=True)):
        _set_compiled_call(layer, wrap(number, call or layer._call_impl))
    try:
        yield
    finally:
        for layer, call in zip(layers, unwrapped, strict=True):
            _set_compiled_call(layer, call)


def drop_compiled_call(layer: nn.Module) -> None:
    """Undo `layer.compile()`."""
    _set_compiled_call(layer, None)


def _set_compiled_call(layer: Any, call: LayerCall | None) -> None:
    layer._compiled_call_impl = call


# transformers: models


def set_attention_function(config: "PreTrainedConfig", name: str) -> None:
    """Let the layers of the model with this config call the attention function registered as `name`."""
    config._attn_implementation = name


def attention_function_name(config: "PreTrainedConfig") -> str:
    """Name of the attention function that the layers call."""
    return str(config._attn_implementation)


def sdpa_attention() -> Callable[..., tuple[Tensor, None]]:
    """The library's fused attention."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    function: Callable[..., tuple[Tensor, None]] = sdpa_attention_forward
    return function


def flex_attention() -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The library's block-sparse attention."""
    from transformers.integrations.flex_attention import flex_attention_forward

    function: Callable[..., tuple[Tensor, Tensor | None]] = flex_attention_forward
    return function


def supports_sdpa(model_class: "type[PreTrainedModel]") -> bool:
    """Whether models of this class run with the library's fused attention."""
    return bool(model_class._supports_sdpa)


def text_model_class(config: "PreTrainedConfig") -> "type[PreTrainedModel] | None":
    """The class that AutoModel would use for this config; None: it knows none."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    return cast("type[PreTrainedModel] | None", MODEL_MAPPING.get(type(config), None))


def is_masked_language_model(model_type: str) -> bool:
    """Whether the library has a masked language model of this type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def library_class(path: str) -> "type[PreTrainedModel]":
    """A class below `transformers.models`, by `module:class`."""
    module, name = path.split(":")
    found: type[PreTrainedModel] = getattr(importlib.import_module(f"transformers.models.{module}"), name)
    return found


def model_from_config(
    model_class: "type[PreTrainedModel]", config: "PreTrainedConfig", *, dtype: torch.dtype, attention: str
) -> "PreTrainedModel":
    """A model with random weights, on the device of the surrounding `torch.device` context."""
    return model_class._from_config(config, dtype=dtype, attn_implementation=attention)


def wrap_checkpointing(layer: Any, wrap: Callable[[LayerCall], LayerCall]) -> None:
    """Replace the function that checkpoints a layer, which `gradient_checkpointing_enable` must have set."""
    layer._gradient_checkpointing_func = wrap(layer._gradient_checkpointing_func)


def rotate_half_of(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """The half rotation that models of this type call; None: they have none."""
    found: Callable[[Tensor], Tensor] | None = getattr(_modeling_file(model), "rotate_half", None)
    return found


def set_rotate_half(model: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
    """Let all models of this type in this process call `function` for it."""
    _modeling_file(model).rotate_half = function


def _modeling_file(model: nn.Module) -> Any:
    return sys.modules[type(model).__module__]


def is_tanh_gelu(module: nn.Module) -> bool:
    """Whether this is the library's tanh approximation of GELU."""
    from transformers.activations import GELUTanh

    return isinstance(module, GELUTanh)


def replace_forward(layer: Any, forward: LayerCall) -> LayerCall:
    """Give one decoder layer another forward; returns its own."""
    own: LayerCall = layer.forward
    layer.forward = forward
    return own


def forget_processor(tokenizer: "PreTrainedTokenizerFast") -> None:
    """Save the tokenizer of a multimodal model as one of its own, without the image processor."""
    tokenizer._processor_class = None
    tokenizer.init_kwargs.pop("processor_class", None)


# peft


def change_class(layer: Any, subclass: type[nn.Module]) -> None:
    """Make `layer` an instance of a subclass of its class; parameters, hooks and attributes stay."""
    if not issubclass(subclass, type(layer)):
        raise TypeError(f"{subclass.__name__} is no subclass of {type(layer).__name__}")
    layer.__class__ = subclass


def switch_adapters(model: nn.Module, off: Sequence[bool] | None = None) -> list[bool]:
    """Switch each LoRA layer off or on, by default all off; returns what they were. `requires_grad` stays as it is."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "_disable_adapters")]
    before = [bool(layer._disable_adapters) for layer in layers]
    for layer, value in zip(layers, [True] * len(layers) if off is None else off, strict=True):
        layer._disable_adapters = value
    return before
