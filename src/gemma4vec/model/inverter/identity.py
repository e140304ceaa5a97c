"""Which encoder made a vector: its weights and how it reads a text, whatever the machine and the type of numbers."""

import json

from gemma4vec.files import sha256_text
from gemma4vec.text.text_embedder import TextEmbedder

# What `describe` says of the machine, of speed, and of texts too long for either.
_NOT_THE_MODEL = {"dtype", "device", "attention_backend", "layout", "max_tokens"}


def encoder_identity(model: TextEmbedder) -> str:
    """A hash, 16 hexadecimal digits, that two openings of one model have in common, in fp32 and in bf16."""
    weights = str(getattr(model, "weights", None) or model.fingerprint)
    described = {key: value for key, value in model.describe().items() if key not in _NOT_THE_MODEL}
    return sha256_text("encoder", weights, str(model.dimension), json.dumps(described, sort_keys=True, default=str))[
        :16
    ]
