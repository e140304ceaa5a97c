"""Tiny random models with real tokenizers, written to disk as a hub would deliver them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
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


def write_tiny(folder: Path, family: str = "gemma3", *, layers: int = 3, window: int = 8) -> Path:
    """A random model of a family with two layer types where the family has them, and its tokenizer."""
    torch.manual_seed(1)
    common = {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    if family == "gemma3":
        types = ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(layers)]
        config = Gemma3TextConfig(
            **common, sliding_window=window, layer_types=types, query_pre_attn_scalar=8, initializer_range=0.2
        )
        model = Gemma3ForCausalLM(config)
    else:
        model = LlamaForCausalLM(LlamaConfig(**common, initializer_range=0.2))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
