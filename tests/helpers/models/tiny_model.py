"""Tiny random models with real tokenizers, written to disk as a hub would deliver them."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    EmbeddingGemma2Config,
    EmbeddingGemma2Model,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    Gemma3TextModel,
    Gemma4Config,
    Gemma4ForCausalLM,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Gemma2Config,
    T5Gemma2ForConditionalGeneration,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
)

WORDS = "def return for in if else self list file read write path name value none data key open close sort tree graph"
TEXTS = [f"{a} {b} the {c}" for a in WORDS.split() for b in WORDS.split()[:8] for c in ("node", "edge", "line")]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with <pad>, <eos>, <bos>, that puts BOS in front as Gemma's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )


def write_tiny(folder: Path, architecture: str = "gemma3", *, layers: int = 3, window: int = 8) -> Path:
    """A random model of a family (a key of `BUILDERS`), with two layer types where it has them, and its tokenizer.

    A process makes each once and keeps its files: hundreds of tests ask for the same.
    """
    key = (architecture, layers, window, torch.get_default_dtype(), *sorted(COMMON.items()))
    if key not in _written:
        with tempfile.TemporaryDirectory() as made:
            _make_tiny(Path(made), architecture, layers, window)
            files = {file.name: file.read_bytes() for file in Path(made).iterdir()}
        _written[key] = files, torch.get_rng_state()
    files, state = _written[key]
    torch.set_rng_state(state)  # what a test draws next does not depend on the tests before it
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


_written: dict[tuple[Any, ...], tuple[dict[str, bytes], torch.Tensor]] = {}


def _make_tiny(folder: Path, architecture: str, layers: int, window: int) -> None:
    torch.manual_seed(1)
    model = BUILDERS[architecture](layers, window)
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer._processor_class = PROCESSORS.get(architecture)
    tokenizer.save_pretrained(folder)


# What the tokenizers of multimodal models name in their configs.
PROCESSORS = {"gemma3_whole": "Gemma3Processor", "gemma4": "Gemma4Processor", "t5gemma2": "Gemma3Processor"}
COMMON = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "initializer_range": 0.2,
}
SIGLIP = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 32,
    "patch_size": 16,
}


def common(layers: int) -> dict[str, Any]:
    return COMMON | {"num_hidden_layers": layers}


def gemma_like(layers: int, window: int) -> dict[str, Any]:
    """Sliding and full layers in turn, the last one full."""
    types = ["full_attention" if (layers - i) % 2 else "sliding_attention" for i in range(layers)]
    types[0] = "sliding_attention"
    return common(layers) | {"sliding_window": window, "layer_types": types, "query_pre_attn_scalar": 8}


def gemma4_like(layers: int, window: int) -> dict[str, Any]:
    """Global layers have larger heads; the last layers share keys and values; every layer has embeddings of its own."""
    settings = gemma_like(layers, window) | {"global_head_dim": 16}
    del settings["query_pre_attn_scalar"]
    return settings


def gemma3(layers: int, window: int) -> PreTrainedModel:
    return Gemma3ForCausalLM(Gemma3TextConfig(**gemma_like(layers, window)))


def gemma3_whole(layers: int, window: int) -> PreTrainedModel:
    """As the larger Gemma 3 come: with a vision tower."""
    config = Gemma3Config(
        text_config=gemma_like(layers, window), vision_config=SIGLIP, mm_tokens_per_image=4, image_token_index=399
    )
    return Gemma3ForConditionalGeneration(config)


def embedding_gemma(layers: int, window: int) -> PreTrainedModel:
    return Gemma3TextModel(Gemma3TextConfig(**gemma_like(layers, window), use_bidirectional_attention=True))


def gemma4_settings(layers: int, window: int) -> dict[str, Any]:
    return gemma4_like(layers + 2, window) | {
        "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 6,
        "vocab_size_per_layer_input": 400,
        "layer_types": [*gemma4_like(layers, window)["layer_types"], "sliding_attention", "full_attention"],
    }


def gemma4_text(layers: int, window: int) -> PreTrainedModel:
    return scalars_apart(Gemma4ForCausalLM(Gemma4TextConfig(**gemma4_settings(layers, window))))


def gemma4(layers: int, window: int) -> PreTrainedModel:
    """As google/gemma-4-E2B-it comes: with a vision tower."""
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"num_key_value_heads": 1, "head_dim": 8, "patch_size": 4, "position_embedding_size": 16}
    config = Gemma4Config(text_config=gemma4_settings(layers, window), vision_config=vision, image_token_id=399)
    return scalars_apart(Gemma4ForConditionalGeneration(config))


def gemma4_unified(layers: int, window: int) -> PreTrainedModel:
    settings = gemma4_like(layers, window) | {"attention_k_eq_v": True, "num_global_key_value_heads": 1}
    config = Gemma4UnifiedConfig(text_config=settings, vision_config=None, audio_config=None)
    return scalars_apart(Gemma4UnifiedForConditionalGeneration(config))


def embedding_gemma2(layers: int, window: int) -> PreTrainedModel:
    settings = gemma4_like(layers, window) | {
        "num_global_key_value_heads": 1,
        "hidden_size_per_layer_input": 6,
        "embedding_dim": 40,
    }
    config = EmbeddingGemma2Config(text_config=settings, vision_config=None, audio_config=None)
    return scalars_apart(EmbeddingGemma2Model(config))


def scalars_apart(model: PreTrainedModel) -> PreTrainedModel:
    """Layer scalars that are not 1, so that a test sees whether they are loaded."""
    for name, buffer in model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.fill_(0.75)
    return model


def llama(layers: int, window: int) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**common(layers)))


def mistral(layers: int, window: int) -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**common(layers), sliding_window=window))


def qwen3(layers: int, window: int) -> PreTrainedModel:
    """The upper layers slide."""
    slides = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": layers // 2}
    return Qwen3ForCausalLM(Qwen3Config(**common(layers), **slides))


def t5gemma(layers: int, window: int) -> PreTrainedModel:
    part = gemma_like(layers, window) | {"attn_logit_softcapping": 2.0}
    return T5GemmaForConditionalGeneration(T5GemmaConfig(encoder=part, decoder=part, vocab_size=400))


def t5gemma2(layers: int, window: int) -> PreTrainedModel:
    part = gemma_like(layers, window)
    encoder = {"text_config": part, "vision_config": SIGLIP, "mm_tokens_per_image": 4, "eoi_token_index": 398}
    return T5Gemma2ForConditionalGeneration(
        T5Gemma2Config(encoder=encoder, decoder=part, image_token_index=399, initializer_range=0.2)
    )


BUILDERS: dict[str, Callable[[int, int], PreTrainedModel]] = {
    "embedding_gemma": embedding_gemma,
    "embedding_gemma2": embedding_gemma2,
    "gemma3": gemma3,
    "gemma3_whole": gemma3_whole,
    "gemma4": gemma4,
    "gemma4_text": gemma4_text,
    "gemma4_unified": gemma4_unified,
    "llama": llama,
    "mistral": mistral,
    "qwen3": qwen3,
    "t5gemma": t5gemma,
    "t5gemma2": t5gemma2,
}
# Families that attend both ways only.
ENCODERS = frozenset({"embedding_gemma2", "t5gemma", "t5gemma2"})
MODES = [
    (architecture, causal)
    for architecture in BUILDERS
    for causal in (True, False)
    if not (causal and architecture in ENCODERS)
]
