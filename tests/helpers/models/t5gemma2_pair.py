"""The library's own encoder-decoder with the weights of ours: the oracle of merged attention and of denoising."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.t5gemma2.configuration_t5gemma2 import T5Gemma2DecoderConfig, T5Gemma2TextConfig
from transformers.models.t5gemma2.modeling_t5gemma2 import T5Gemma2Decoder, T5Gemma2TextEncoder

from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.masks import attention_mask
from gemma4vec.model.denoiser.decoder import Decoder

# Our name of a layer's part -> the library's.
RENAMED = {"input_layernorm": "pre_self_attn_layernorm", "post_attention_layernorm": "post_self_attn_layernorm"}
KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "query_pre_attn_scalar",
    "rms_norm_eps",
    "rope_parameters",
    "attention_bias",
)


def library_name(name: str) -> str:
    """`layers.0.layer.input_layernorm.weight` -> `layers.0.pre_self_attn_layernorm.weight`."""
    parts = [RENAMED.get(part, part) for part in name.split(".") if part not in ("layer", "base_layer")]
    return ".".join(parts)


class LibraryPair(nn.Module):
    """T5Gemma 2's text encoder and decoder, which share their embeddings, one text at a time.

    Its encoder sees one token less before than behind a token in a layer that slides (255 and 256 of 512), where a
    Gemma 3 with bidirectional attention sees as many on both sides. `own_masks=False` hands it the masks of a Gemma 3;
    the decoder always makes its own.
    """

    def __init__(self, backbone: Backbone, decoder: Decoder, *, own_masks: bool = False):
        super().__init__()
        values = {key: getattr(backbone.config, key) for key in KEYS} | {"sliding_window": backbone.window}
        self.reach, self.own_masks = backbone.reach, own_masks

        def config(kind: Any, layer_types: list[str]) -> Any:
            made = kind(**values, num_hidden_layers=len(layer_types), layer_types=layer_types, pad_token_id=0)
            made.dropout_rate = 0.0  # the whole model's config hands it on
            return made

        encoder_config = config(T5Gemma2TextConfig, list(backbone.config.layer_types))
        decoder_config = config(T5Gemma2DecoderConfig, decoder.kinds)
        dtype = backbone.dtype
        how = {"dtype": dtype, "attn_implementation": "sdpa"}
        self.encoder = T5Gemma2TextEncoder._from_config(encoder_config, **how)
        self.decoder = T5Gemma2Decoder._from_config(decoder_config, **how)
        embeddings = backbone.model.get_input_embeddings().weight
        _load(self.encoder, {library_name(n): p for n, p in backbone.model.named_parameters() if "lora_" not in n})
        merged = {library_name(name): value for name, value in merged_weights(decoder).items()}
        _load(self.decoder, merged | {"embed_tokens.weight": embeddings})
        self.decoder.embed_tokens.weight = self.encoder.embed_tokens.weight

    def forward(self, read: list[int], written: list[int]) -> Tensor:
        """States of the decoder, `[L, D]`."""
        masks = None
        if not self.own_masks:
            positions, segments = torch.arange(len(read))[None], torch.zeros(1, len(read), dtype=torch.long)
            masks = {
                "full_attention": attention_mask(positions, segments, causal=False),
                "sliding_attention": attention_mask(positions, segments, causal=False, reach=self.reach),
            }
        encoded = self.encoder(input_ids=torch.tensor([read]), attention_mask=masks).last_hidden_state
        states: Tensor = self.decoder(
            input_ids=torch.tensor([written]), encoder_hidden_states=encoded, use_cache=False
        ).last_hidden_state[0]
        return states


def merged_weights(decoder: Decoder) -> dict[str, Tensor]:
    """A decoder's weights, its adapters merged."""
    found = {name: value.detach() for name, value in decoder.named_parameters() if "lora_" not in name}
    for name, module in decoder.named_modules():
        if hasattr(module, "lora_A"):
            weight = module.base_layer.weight + module.get_delta_weight("default")
            found[f"{name}.base_layer.weight"] = weight.detach()
    return found


def _load(model: nn.Module, values: dict[str, Tensor]) -> None:
    missing, unexpected = model.load_state_dict(values, strict=False)
    assert not unexpected and set(missing) <= {"embed_tokens.eoi_embedding"}, (missing, unexpected)
