"""Write a saved Gemma 3 model as one GGUF file for llama.cpp, the inverse of `model.bases.gguf_model`.

The file also holds our prompts (`gemma4vec.prompt.query` and `.document`): llama.cpp does not apply them, the client
must.
"""

import json
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType, PoolingType
from gguf.quants import dequantize, quantize

from gemma4vec.errors import WorkError
from gemma4vec.export.formats.gguf_tokenizer import read_gguf_tokenizer
from gemma4vec.export.formats.gguf_weights import (
    POOLING,
    backbone_weights,
    check_gguf,
    folded_head,
    rope_of,
    window_period,
)
from gemma4vec.export.source import Source
from gemma4vec.model.save.quantization import scheme_of
from gemma4vec.model.save.read_model import read_settings

QUERY_PROMPT, DOCUMENT_PROMPT = "gemma4vec.prompt.query", "gemma4vec.prompt.document"
_TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
_F16_LARGEST = 65_504.0


def write_gguf(source: Source, file: Path, dtype: str, dimension: int) -> None:
    """Write `file`.

    Args:
        source: the model.
        file: a new file.
        dtype: "f32", "f16", "q8_0" or "q4_0", of all matrices; norms and heads are f32. A model that is quantized by
            the scheme of the same name keeps its values bit for bit.
        dimension: number of leading dimensions that carry values; the file's vectors have the base's width.

    Raises:
        InputError: llama.cpp cannot hold this model; it names the property.
        WorkError: a weight is too large for f16; or one of a quantized model is not on the grid.
        OSError: writing failed.
    """
    exact = scheme_of(read_settings(source.folder)) == dtype
    config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    check_gguf(source.model, config, dimension, source.embedder.dimension)
    hidden = int(config["hidden_size"])
    causal = source.model.attention == "causal"
    writer = GGUFWriter(file, "gemma3" if causal else "gemma-embedding")
    writer.add_name(source.name)
    writer.add_file_type(_TYPES[dtype][1])
    # llama.cpp takes it as its largest context, so a text over the model's limit is refused. A causal model's context
    # has room for one token more, which llama.cpp would generate.
    writer.add_context_length(source.model.max_tokens + causal)
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = rope_of(config)
    writer.add_rope_freq_base(float(rope["full_attention"]["rope_theta"]))
    writer.add_rope_freq_base_swa(float(rope["sliding_attention"]["rope_theta"]))
    writer.add_sliding_window(config["sliding_window"])
    writer.add_sliding_window_pattern(window_period(config))
    writer.add_causal_attention(causal)
    writer.add_pooling_type(PoolingType[POOLING[source.model.readout.name]])
    prompts = source.embedder.prompts
    writer.add_string(QUERY_PROMPT, prompts.query)
    writer.add_string(DOCUMENT_PROMPT, prompts.document)
    read_gguf_tokenizer(source.folder, int(config["vocab_size"])).write(writer)
    for name, values in backbone_weights(source.folder):
        _add(writer, name, values, dtype, exact=exact)
    head_DD = folded_head(source.folder, dimension, hidden)
    if head_DD is not None:
        writer.add_dense_features_dims("dense_2", hidden, hidden)
        writer.add_dense_features_dims("dense_3", hidden, hidden)
        _add(writer, "dense_2.weight", head_DD, "f32")
        _add(writer, "dense_3.weight", np.eye(hidden, dtype=np.float32), "f32")
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add(writer: GGUFWriter, name: str, values: np.ndarray, dtype: str, *, exact: bool = False) -> None:
    """Add a tensor: a matrix in `dtype`, or in f16 if its rows do not divide into blocks; a vector in f32.

    With `exact`, the file's values must be those of the model.
    """
    kind = _TYPES[dtype][0] if values.ndim > 1 else GGMLQuantizationType.F32
    if values.shape[-1] % GGML_QUANT_SIZES[kind][0]:
        kind = GGMLQuantizationType.F16
    if kind == GGMLQuantizationType.F16 and np.abs(values).max(initial=0.0) > _F16_LARGEST:
        raise WorkError(f"gguf: a value of {name} is too large for f16; use --dtype f32")
    quantized = quantize(np.ascontiguousarray(values), kind)
    if exact and values.ndim > 1 and not np.array_equal(dequantize(quantized, kind), values):
        raise WorkError(f"gguf: {name} is not on the grid of {dtype}, by which its model says it was quantized")
    writer.add_tensor(name, quantized, raw_dtype=kind)
