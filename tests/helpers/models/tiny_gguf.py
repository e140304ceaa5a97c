"""A tiny Gemma 3 or Llama model written with the gguf library, as llama.cpp's converter would write it."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KEY_HEADS, HEAD_SIZE = 64, 96, 2, 2, 1, 32
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
PIECES = [*"\u2581abcdefghij", "  ", "ab", "\u2581a", "\u2581ab"]
# Every byte has a token, as in Gemma, so that any text can be encoded.
TOKENS = [*SPECIAL, *[f"<0x{byte:02X}>" for byte in range(256)], *PIECES]
NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6


def permuted(weight_OI: np.ndarray, heads: int) -> np.ndarray:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py, word for word."""
    return (
        weight_OI.reshape(heads, 2, weight_OI.shape[0] // heads // 2, *weight_OI.shape[1:])
        .swapaxes(1, 2)
        .reshape(weight_OI.shape)
    )


def shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape of every weight of the tiny model."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (len(TOKENS), HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    norms = {"input_layernorm": HIDDEN, "post_attention_layernorm": HIDDEN}
    if architecture == "gemma3":
        norms |= {"pre_feedforward_layernorm": HIDDEN, "post_feedforward_layernorm": HIDDEN}
        norms |= {"self_attn.q_norm": HEAD_SIZE, "self_attn.k_norm": HEAD_SIZE}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name, size in norms.items():
            found[f"{prefix}{name}.weight"] = (size,)
        found[prefix + "self_attn.q_proj.weight"] = (HEADS * HEAD_SIZE, HIDDEN)
        found[prefix + "self_attn.k_proj.weight"] = (KEY_HEADS * HEAD_SIZE, HIDDEN)
        found[prefix + "self_attn.v_proj.weight"] = (KEY_HEADS * HEAD_SIZE, HIDDEN)
        found[prefix + "self_attn.o_proj.weight"] = (HIDDEN, HEADS * HEAD_SIZE)
        found[prefix + "mlp.gate_proj.weight"] = (INTERMEDIATE, HIDDEN)
        found[prefix + "mlp.up_proj.weight"] = (INTERMEDIATE, HIDDEN)
        found[prefix + "mlp.down_proj.weight"] = (HIDDEN, INTERMEDIATE)
    return found


_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(name: str, architecture: str) -> str:
    """`model.layers.0.mlp.up_proj.weight` -> `blk.0.ffn_up.weight`."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, *middle, suffix = name.split(".")
    after_attention = "ffn_norm" if architecture == "llama" else "post_attention_norm"
    names = _GGUF_NAMES | {"post_attention_layernorm": after_attention}
    return f"blk.{layer}.{names['.'.join(middle)]}.{suffix}"


def write_tiny(path: Path, architecture: str = "gemma3", seed: int = 0) -> dict[str, np.ndarray]:
    """Write the model and return its weights (float32, unquantised) under their Hugging Face names.

    The MLP is stored as Q4_1, everything else as F32.
    """
    random = np.random.default_rng(seed)
    weights = {n: random.normal(0, 0.2, s).astype(np.float32) for n, s in shapes(architecture).items()}
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_key_length(HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    if architecture == "gemma3":
        writer.add_sliding_window(8)
    _add_tokenizer(writer)
    for name, weight in weights.items():
        stored = weight
        if architecture == "gemma3" and name.endswith("norm.weight"):
            stored = weight + 1
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            stored = permuted(weight, HEADS if "q_proj" in name else KEY_HEADS)
        if ".mlp." in name:
            kind = GGMLQuantizationType.Q4_1
            writer.add_tensor(gguf_name(name, architecture), quantize(stored, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name, architecture), np.ascontiguousarray(stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def _add_tokenizer(writer: GGUFWriter) -> None:
    kinds = [CONTROL] * len(SPECIAL) + [BYTE] * 256 + [USER_DEFINED if p == "  " else NORMAL for p in PIECES]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
