"""Wrap a text tower in the smallest model that transformers and sentence-transformers can open.

Most towers are models of their own. The libraries know the T5Gemma encoders only inside a larger class.
"""

from typing import Any

import torch


def wrap_for_export(tower: Any) -> Any:
    """The tower itself, or inside the class in which `AutoModel` or sentence-transformers expects it."""
    kind = tower.config.model_type
    if kind == "t5_gemma_module":
        return _in_t5gemma(tower)
    if kind == "t5gemma2_text":
        return _in_t5gemma2(tower)
    return tower


def _in_t5gemma(tower: Any) -> Any:
    from transformers import T5GemmaConfig, T5GemmaEncoderModel

    part = tower.config.to_dict()
    config = T5GemmaConfig(
        encoder=part,
        decoder=part,  # required, never instantiated
        is_encoder_decoder=False,
        vocab_size=tower.config.vocab_size,
        dropout_rate=tower.config.dropout_rate,
        attention_dropout=tower.config.attention_dropout,
    )
    with torch.device("meta"):
        whole = T5GemmaEncoderModel(config)
    whole.encoder = tower
    return whole


def _in_t5gemma2(tower: Any) -> Any:
    """Add a tiny vision tower: the library has no class for the text encoder alone."""
    from transformers import SiglipVisionConfig
    from transformers.models.t5gemma2.configuration_t5gemma2 import T5Gemma2EncoderConfig
    from transformers.models.t5gemma2.modeling_t5gemma2 import T5Gemma2Encoder

    vision = SiglipVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=32, patch_size=16
    )
    config = T5Gemma2EncoderConfig(
        text_config=tower.config.to_dict(),
        vision_config=vision.to_dict(),
        mm_tokens_per_image=4,
        eoi_token_index=tower.embed_tokens.eoi_token_index,
    )
    # Otherwise AutoProcessor, and thus sentence-transformers, would ask for an image processor.
    config.processor_class = "PreTrainedTokenizerFast"
    whole = T5Gemma2Encoder(config).to(tower.dtype)
    whole.text_model = tower
    return whole
