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
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gemma4vec.errors import InputError
from gemma4vec.files import atomic_folder, disk_errors, sha256_file, write_json
from gemma4vec.model.backbone.attention_probe import check
from gemma4vec.model.backbone.backbone import Backbone, load_backbone
from gemma4vec.model.backbone.lm_head import LanguageModelHead, load_head
from gemma4vec.model.bases.weights import hash_lines
from gemma4vec.model.inverter.frame import DecoderFrame
from gemma4vec.model.inverter.prefix import Prefix
from gemma4vec.model.tokenize.prompt_boundary import save_tokenizer
from gemma4vec.model.tokenize.tokenizer import TextTokenizer, load_saved_tokenizer
from gemma4vec.reading.json_values import read_json
from gemma4vec.recipe.inversion import DECODER_FILE as DECODER_FILE
from gemma4vec.recipe.part import Part

FORMAT = 1
_BASE, _PREFIX, _HEAD, _TEXTS, _VECTORS = "base", "prefix.safetensors", "head.safetensors", "texts.jsonl", "vectors.npy"
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
class OpenDecoder:
    """A decoder's parts.

    Attributes:
        facts: what its file says.
        folder: where it is.
        backbone: causal, with merged adapters.
        head: states to scores of the vocabulary.
        prefix: vectors to soft tokens, in the backbone's type or wider.
        tokenizer: the base's.
        frame: what stands around a text.
    """

    facts: DecoderFacts
    folder: Path
    backbone: Backbone
    head: LanguageModelHead
    prefix: Prefix
    tokenizer: TextTokenizer
    frame: DecoderFrame


def write_decoder(
    folder: Path,
    facts: DecoderFacts,
    backbone: Backbone,
    head: LanguageModelHead,
    prefix: Prefix,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    vectors_Nd: NDArray[np.floating[Any]],
    card: str,
) -> str:
    """Write the folder, whole or not at all; return the hash of its weights.

    Raises:
        WorkError: the disk is full.
    """
    with atomic_folder(folder) as temporary, disk_errors(folder):
        backbone.save_pretrained(temporary / _BASE, torch.float32)
        save_tokenizer(tokenizer.hf_tokenizer, temporary / _BASE, keep_normalizer=True)
        state: Mapping[str, Any] = {n: v.detach().float().contiguous().cpu() for n, v in prefix.state_dict().items()}
        save_file(dict(state), temporary / _PREFIX)
        if not getattr(backbone.config, "tie_word_embeddings", True):
            save_file({"lm_head.weight": head.weight_VD.detach().float().contiguous()}, temporary / _HEAD)
        if len(texts):
            lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
            (temporary / _TEXTS).write_text(lines, encoding="utf-8", errors="surrogatepass")
            np.save(temporary / _VECTORS, vectors_Nd.astype(np.float16), allow_pickle=False)
        for file in temporary.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors lets only the owner read them
        write_json(temporary / DECODER_FILE, facts.model_dump(mode="json"))
        (temporary / "README.md").write_text(card, encoding="utf-8")
        weights = sorted(temporary.rglob("*.safetensors"))
        return hash_lines(f"{file.relative_to(temporary)} {sha256_file(file)}" for file in weights)


def find_decoder(name: str | Path) -> Path:
    """The folder of a decoder: itself, or the `model` folder of the run that trained it.

    Raises:
        InputError: nothing is there, or something else.
    """
    path = Path(name).expanduser()
    for folder in (path, path / "model"):
        if (folder / DECODER_FILE).is_file():
            return folder
    if not path.is_dir():
        raise InputError(f"--decoder: there is no folder {path}; train one with a recipe of the task vector_to_text")
    if (path / "manifest.json").is_file() and not (path / "model").is_dir():
        raise InputError(f"--decoder: {path} has no finished decoder; go on with: gemma4vec train --resume {path}")
    raise InputError(f"--decoder: {path} holds no decoder ({DECODER_FILE}); the task vector_to_text writes one")


def read_facts(folder: Path) -> DecoderFacts:
    """What a decoder's file says.

    Raises:
        InputError: it is missing or damaged, or a later release wrote it.
    """
    file = folder / DECODER_FILE
    value = read_json(file, "the decoder", _ADVICE)
    if isinstance(value, dict) and isinstance(value.get("format"), int) and value["format"] > FORMAT:
        raise InputError(f"{file} has format {value['format']}, this release reads {FORMAT}; install a later gemma4vec")
    try:
        return DecoderFacts.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{file} is damaged ({place}: {first['msg']}); {_ADVICE}") from error


def open_decoder(folder: Path, *, dtype: torch.dtype, device: str) -> OpenDecoder:
    """Load a decoder's weights, and measure that no token sees a later one.

    Raises:
        InputError: a file is missing or damaged. WorkError: its attention is not causal.
    """
    facts, base = read_facts(folder), folder / _BASE
    try:
        tokenizer = load_saved_tokenizer(base)
        backbone = load_backbone(base, causal=True, dtype=dtype, device=device).eval()
        backbone.requires_grad_(False)
        head = _open_head(folder, backbone)
        prefix = _open_prefix(folder / _PREFIX, facts, backbone)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the decoder in {folder} is damaged ({reason}); {_ADVICE}") from error
    check(backbone)
    frame = DecoderFrame.of(tokenizer, facts.prefix_tokens, facts.max_tokens)
    return OpenDecoder(facts, folder, backbone, head, prefix, tokenizer, frame)


def stored_texts(folder: Path, facts: DecoderFacts) -> tuple[list[str], NDArray[np.float32]]:
    """(training texts, their vectors `[N, d]`) that are stored with a decoder; none if they were deleted.

    Raises:
        InputError: the two files do not fit each other or the decoder.
    """
    if not (folder / _TEXTS).is_file() or not (folder / _VECTORS).is_file():
        return [], np.zeros((0, facts.dimension), dtype=np.float32)
    try:
        lines = (folder / _TEXTS).read_text(encoding="utf-8", errors="surrogatepass").splitlines()
        texts = [str(json.loads(line)) for line in lines]
        vectors_Nd = np.load(folder / _VECTORS, allow_pickle=False).astype(np.float32)
        if vectors_Nd.shape != (len(texts), facts.dimension):
            raise ValueError(f"{len(texts)} texts, vectors of shape {vectors_Nd.shape}")
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the texts of the decoder in {folder} are damaged ({reason}); delete {_TEXTS}") from error
    return texts, vectors_Nd / np.linalg.norm(vectors_Nd, axis=1, keepdims=True)


def _open_head(folder: Path, backbone: Backbone) -> LanguageModelHead:
    if not (folder / _HEAD).is_file():
        return load_head(backbone, folder / _BASE, "vector_to_text")
    weight_VD = load_file(folder / _HEAD)["lm_head.weight"].to(backbone.device, backbone.dtype)
    return LanguageModelHead(weight_VD, getattr(backbone.config, "final_logit_softcapping", None))


def _open_prefix(file: Path, facts: DecoderFacts, backbone: Backbone) -> Prefix:
    prefix = Prefix(facts.dimension, facts.prefix_tokens, backbone.input_size, hidden=facts.prefix_hidden, size=1.0)
    prefix.load_state_dict(load_file(file))
    wide = torch.float64 if backbone.dtype == torch.float64 else torch.float32
    return prefix.to(backbone.device, wide).eval().requires_grad_(False)
