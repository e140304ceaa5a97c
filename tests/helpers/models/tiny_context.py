"""A tiny random sentence-transformers model, as the small encoder of a contextual token."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tiny_model import tiny_tokenizer
from transformers import BertConfig, BertModel

WIDTH = 12


def write_context(folder: Path) -> Path:
    """BERT of two layers with dropout, mean pooling, 24 tokens at most."""
    torch.manual_seed(11)
    config = BertConfig(
        vocab_size=400,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder / "plain")
    tiny_tokenizer().save_pretrained(folder / "plain")
    transformer = Transformer(str(folder / "plain"), max_seq_length=24)
    model = SentenceTransformer(modules=[transformer, Pooling(WIDTH, pooling_mode="mean")], device="cpu")
    model.save(str(folder / "encoder"), create_model_card=False)
    return folder / "encoder"
