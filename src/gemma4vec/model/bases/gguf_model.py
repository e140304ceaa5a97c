"""Convert a GGUF file to a Hugging Face model folder: config, weights in bf16, tokenizer.

The formats differ in three ways, none of which raises an error if missed:

- Gemma's norm weights are stored as `w + 1`.
- Llama's query and key rows are reordered for ggml's rotary embedding.
- A GGUF file describes a tokenizer less completely than `tokenizer.json`: SmolLM2 splits numbers into digits.

bf16 suffices: the quantization error (Q4_K: about 5% of a weight) is 20 times that of bf16 (0.2%), and Gemma's released
weights are bf16 too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.model.bases.gguf_file import GgufFile
from gemma4vec.model.bases.gguf_tokenizer import write_tokenizer
from gemma4vec.model.bases.load_errors import base_errors

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

WEIGHTS_NAME = "model.safetensors"

_OUTSIDE_LAYERS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_COMMON = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NAMES = {
    "llama": _LAYER_COMMON | {"ffn_norm": "post_attention_layernorm"},
    "gemma3": _LAYER_COMMON
    | {
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}


def write_model_folder(gguf_path: Path, folder: Path) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files of a GGUF model into an existing folder.

    Raises:
        InputError: the architecture is neither `gemma3` nor `llama`, or the file is damaged.
        OSError: writing failed.
    """
    from safetensors.torch import save_file

    source, architecture = _write_description(gguf_path, folder)
    with base_errors(gguf_path, passing=(OSError,)):
        weights = _weights(source, architecture)
    save_file(weights, folder / WEIGHTS_NAME, metadata={"format": "pt"})


def write_model_description(gguf_path: Path, folder: Path) -> None:
    """Write everything that `write_model_folder` writes except the weights.

    Raises:
        InputError: as `write_model_folder`.
    """
    _write_description(gguf_path, folder)


def _write_description(gguf_path: Path, folder: Path) -> tuple[GgufFile, str]:
    with base_errors(gguf_path):
        source = GgufFile(gguf_path)
    architecture = source.metadata.get("general.architecture")
    if architecture not in _LAYER_NAMES:
        raise InputError(f"{gguf_path} holds a {architecture!r} model; only gemma3 and llama can be unpacked")
    with base_errors(gguf_path, passing=(OSError,)):
        config = _CONFIGS[architecture](source.metadata)
        config.tie_word_embeddings = all(entry.name != "output.weight" for entry in source.tensors)
        config.dtype = "bfloat16"
        config.save_pretrained(folder)
        write_tokenizer(gguf_path, source.metadata, folder)
    return source, str(architecture)


def _weights(source: GgufFile, architecture: str) -> "dict[str, torch.Tensor]":
    """All tensors of the file by Hugging Face name, in bf16."""
    import torch

    heads = source.metadata[f"{architecture}.attention.head_count"]
    key_heads = source.metadata[f"{architecture}.attention.head_count_kv"]
    found: dict[str, torch.Tensor] = {}
    for entry in source.tensors:
        name = hugging_face_name(entry.name, architecture)
        values = source.read(entry)
        if architecture == "gemma3" and entry.name.endswith("norm.weight"):
            values = values - 1
        if architecture == "llama" and ".attn_q." in entry.name:
            values = unpermute(values, heads)
        if architecture == "llama" and ".attn_k." in entry.name:
            values = unpermute(values, key_heads)
        found[name] = torch.from_numpy(np.require(values, requirements=["C", "W"])).to(torch.bfloat16)
    return found


def hugging_face_name(name: str, architecture: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`.

    Raises:
        InputError: the Hugging Face model has no such tensor.
    """
    if name in _OUTSIDE_LAYERS:
        return _OUTSIDE_LAYERS[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _LAYER_NAMES[architecture]:
        return f"model.layers.{parts[1]}.{_LAYER_NAMES[architecture][parts[2]]}.{parts[3]}"
    raise InputError(f"tensor {name!r} is unknown in a {architecture} model: is the file from a newer version?")


def gguf_name(name: str, architecture: str) -> str:
    """`layers.3.self_attn.q_proj.weight`, with or without `model.` in front, -> `blk.3.attn_q.weight`.

    Raises:
        InputError: a GGUF model of this architecture has no such tensor.
    """
    whole = name if name.startswith(("model.", "lm_head.")) else f"model.{name}"
    outside = {ours: theirs for theirs, ours in _OUTSIDE_LAYERS.items()}
    if whole in outside:
        return outside[whole]
    _, layers, number, middle = (*whole.split(".", 3), "", "", "")[:4]
    part, _, suffix = middle.rpartition(".")
    inside = {ours: theirs for theirs, ours in _LAYER_NAMES[architecture].items()}
    if layers == "layers" and part in inside:
        return f"blk.{number}.{inside[part]}.{suffix}"
    raise InputError(f"weight {name!r} has no place in a GGUF file of a {architecture} model")


def unpermute(weight_OI: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's reordering of rotary pairs (convert_hf_to_gguf.py, `LlamaModel.permute`).

    ggml rotates neighboring rows (0,1), (2,3), ...; Hugging Face rotates row i with row i + head_dim / 2.

    Args:
        weight_OI: `[heads * head_dim, inputs]`.
        heads: number of heads.
    """
    pairs = weight_OI.shape[0] // heads // 2
    return weight_OI.reshape(heads, pairs, 2, -1).swapaxes(1, 2).reshape(weight_OI.shape)


def _common_settings(metadata: dict[str, Any], architecture: str) -> dict[str, Any]:
    def get(key: str) -> Any:
        return metadata[f"{architecture}.{key}"]

    tokenizer = "tokenizer.ggml."
    return {
        "vocab_size": len(metadata[tokenizer + "tokens"]),
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": get("attention.head_count"),
        "num_key_value_heads": get("attention.head_count_kv"),
        "max_position_embeddings": get("context_length"),
        # The file has float32: 1e-6 would become 9.99999997e-07.
        "rms_norm_eps": float(f"{get('attention.layer_norm_rms_epsilon'):.6g}"),
        "bos_token_id": metadata[tokenizer + "bos_token_id"],
        "eos_token_id": metadata[tokenizer + "eos_token_id"],
        "pad_token_id": metadata.get(tokenizer + "padding_token_id"),
    }


def _gemma3_config(metadata: dict[str, Any]) -> "PreTrainedConfig":
    from transformers import Gemma3TextConfig

    head_dimension = metadata["gemma3.attention.key_length"]
    config = Gemma3TextConfig(
        **_common_settings(metadata, "gemma3"),
        head_dim=head_dimension,
        # The file lacks the local layers' rotary base (Gemma 3 report, section 2; the class's default has the 5 local :
        # 1 global pattern) and the attention scale, which is the head dimension in all sizes except 27B.
        query_pre_attn_scalar=head_dimension,
        sliding_window=metadata["gemma3.attention.sliding_window"],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": metadata["gemma3.rope.freq_base"]},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    )
    config.architectures = ["Gemma3ForCausalLM"]
    return config


def _llama_config(metadata: dict[str, Any]) -> "PreTrainedConfig":
    from transformers import LlamaConfig

    config = LlamaConfig(
        **_common_settings(metadata, "llama"),
        rope_parameters={"rope_type": "default", "rope_theta": metadata["llama.rope.freq_base"]},
    )
    config.architectures = ["LlamaForCausalLM"]
    return config


_CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {"gemma3": _gemma3_config, "llama": _llama_config}
