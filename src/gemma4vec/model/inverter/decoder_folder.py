"""The folder of a decoder from vectors to texts: a causal base in the library's format, soft tokens, and their facts.

    decoder.json          whose vectors it reads, in which role, how long texts may be, which texts were held out
    base/                 the base with its adapters merged, and its tokenizer
    prefix.safetensors    the layers that make soft tokens of a vector
    head.safetensors      the language-model head, where it is not the embedding matrix
    texts.jsonl           training texts, or a sample, one JSON string a line; may be deleted
    vectors.npy           their vectors, float16[N, d]; may be deleted with them

Nothing in it is a pickle. Shapes: N texts, d dimensions of a vector.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file, save_file

from gemma4vec.errors import InputError
from gemma4vec.files import NPY_ERRORS, atomic_folder, disk_errors, write_json
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.inverter.causal_base import (
    CausalBase,
    damage_as_input_error,
    find_result,
    hash_written,
    open_causal_base,
    read_result_facts,
    save_causal_base,
)
from gemma4vec.model.inverter.frame import DecoderFrame
from gemma4vec.model.inverter.prefix import Prefix
from gemma4vec.reading.json_values import loads_json
from gemma4vec.recipe.inversion import DECODER_FILE as DECODER_FILE
from gemma4vec.recipe.part import Part

FORMAT = 1
PREFIX_FILE = "prefix.safetensors"
_TEXTS, _VECTORS = "texts.jsonl", "vectors.npy"
_ADVICE = "copy the decoder's folder again from its run"


class DecoderFacts(Part):
    """What `decoder.json` says."""

    format: Literal[1] = 1
    name: str = Field(description="the run that trained it")
    encoder: str = Field(description="identity of the model whose vectors it reads (`encoder_identity`)")
    encoder_name: str = Field(description="that model's name")
    role: Literal["query", "document"] = Field(description="whose prompt the vectors' texts had")
    dimension: int = Field(ge=1, description="dimensions of a vector")
    prefix_tokens: int = Field(ge=1, description="soft tokens that a vector becomes")
    prefix_hidden: int = Field(ge=1, description="hidden width of the layers that make them")
    max_tokens: int = Field(ge=1, description="all that it reads: opening token, soft tokens, text")
    text_tokens: int = Field(ge=1, description="longest text that it learned, without the token that ends it")
    trained_texts: int = Field(ge=0, description="number of texts that it was trained on")
    stored_texts: int = Field(ge=0, description="number of those in texts.jsonl")
    held_out: tuple[str, ...] = Field(description="hashes of the texts that it was never trained on (`words_key`)")
    made_from: dict[str, Any] = Field(description="names and hashes of base and encoder")
    licence: str | None = Field(None, description="the base's")


@dataclass(frozen=True)
class OpenDecoder(CausalBase):
    """A decoder's parts.

    Attributes:
        facts: what its file says.
        folder: where it is.
        prefix: vectors to soft tokens, in the backbone's type or wider.
        frame: what stands around a text.
    """

    facts: DecoderFacts
    folder: Path
    prefix: Prefix
    frame: DecoderFrame


def write_decoder(
    folder: Path,
    facts: DecoderFacts,
    parts: CausalBase,
    prefix: Prefix,
    texts: Sequence[str],
    vectors_Nd: NDArray[np.floating[Any]],
    card: str,
) -> str:
    """Write the folder, whole or not at all; return the hash of its weights.

    Raises:
        WorkError: the disk is full.
    """
    with atomic_folder(folder) as temporary, disk_errors(folder):
        save_causal_base(temporary, parts)
        state: Mapping[str, Any] = {n: v.detach().float().contiguous().cpu() for n, v in prefix.state_dict().items()}
        save_file(dict(state), temporary / PREFIX_FILE)
        if len(texts):
            store_texts(temporary, texts, vectors_Nd)
        write_json(temporary / DECODER_FILE, facts.model_dump(mode="json"))
        (temporary / "README.md").write_text(card, encoding="utf-8")
        return hash_written(temporary)


def find_decoder(name: str | Path) -> Path:
    """The folder of a decoder: itself, or the `model` folder of the run that trained it.

    Raises:
        InputError: nothing is there, or something else.
    """
    return find_result(name, DECODER_FILE, option="--decoder", what="decoder", task="vector_to_text")


def read_facts(folder: Path) -> DecoderFacts:
    """What a decoder's file says.

    Raises:
        InputError: it is missing or damaged, or a later release wrote it.
    """
    return read_result_facts(folder / DECODER_FILE, DecoderFacts, FORMAT, "decoder", _ADVICE)


def open_decoder(folder: Path, *, dtype: torch.dtype, device: str) -> OpenDecoder:
    """Load a decoder's weights, and measure that no token sees a later one.

    Raises:
        InputError: a file is missing or damaged. WorkError: its attention is not causal.
    """
    facts = read_facts(folder)
    with damage_as_input_error("decoder", folder, _ADVICE):
        base = open_causal_base(folder, dtype=dtype, device=device, task="vector_to_text")
        prefix = _open_prefix(folder / PREFIX_FILE, facts, base.backbone)
    frame = DecoderFrame.of(base.tokenizer, facts.prefix_tokens, facts.max_tokens)
    return OpenDecoder(base.backbone, base.head, base.tokenizer, facts, folder, prefix, frame)


def store_texts(folder: Path, texts: Sequence[str], vectors_Nd: NDArray[np.floating[Any]]) -> None:
    """Write what `stored_texts` reads: training texts and their vectors `[N, d]`."""
    lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
    (folder / _TEXTS).write_text(lines, encoding="utf-8", errors="surrogatepass")
    np.save(folder / _VECTORS, vectors_Nd.astype(np.float16), allow_pickle=False)


def stored_texts(folder: Path, facts: DecoderFacts) -> tuple[list[str], NDArray[np.float32]]:
    """(training texts, their vectors `[N, d]`) that are stored with a decoder; none if they were deleted.

    Raises:
        InputError: the two files do not fit each other or the decoder.
    """
    if not (folder / _TEXTS).is_file() or not (folder / _VECTORS).is_file():
        return [], np.zeros((0, facts.dimension), dtype=np.float32)
    try:
        whole = (folder / _TEXTS).read_text(encoding="utf-8", errors="surrogatepass")
        # JSON leaves some of what `splitlines` takes for the end of a line (U+0085, U+2028) as it is.
        texts = [str(loads_json(line, surrogates=True)) for line in whole.split("\n") if line]
        vectors_Nd = np.load(folder / _VECTORS, allow_pickle=False).astype(np.float32)
        if vectors_Nd.shape != (len(texts), facts.dimension):
            raise ValueError(f"{len(texts)} texts, vectors of shape {vectors_Nd.shape}")
    except (OSError, *NPY_ERRORS) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the texts of the decoder in {folder} are damaged ({reason}); delete {_TEXTS}") from error
    return texts, vectors_Nd / np.linalg.norm(vectors_Nd, axis=1, keepdims=True)


def _open_prefix(file: Path, facts: DecoderFacts, backbone: Backbone) -> Prefix:
    prefix = Prefix(facts.dimension, facts.prefix_tokens, backbone.input_size, hidden=facts.prefix_hidden, size=1.0)
    prefix.load_state_dict(load_file(file))
    wide = torch.float64 if backbone.dtype == torch.float64 else torch.float32
    return prefix.to(backbone.device, wide).eval().requires_grad_(False)
