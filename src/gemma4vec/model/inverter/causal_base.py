"""A causal base with its language-model head in a folder: what decoders and suggesters are made of.

base/                 the base with its adapters merged, and its tokenizer
head.safetensors      the language-model head, where it is not the embedding matrix
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gemma4vec.errors import InputError
from gemma4vec.files import sha256_file
from gemma4vec.model.backbone.attention_probe import check
from gemma4vec.model.backbone.backbone import Backbone, load_backbone
from gemma4vec.model.backbone.lm_head import LanguageModelHead, load_head
from gemma4vec.model.bases.weights import hash_lines
from gemma4vec.model.tokenize.prompt_boundary import save_tokenizer
from gemma4vec.model.tokenize.tokenizer import TextTokenizer, load_saved_tokenizer
from gemma4vec.reading.json_values import read_json
from gemma4vec.recipe.part import Part

_BASE, _HEAD = "base", "head.safetensors"


@dataclass(frozen=True)
class CausalBase:
    """A causal backbone without adapters, states to scores of the vocabulary, and the tokenizer."""

    backbone: Backbone
    head: LanguageModelHead
    tokenizer: TextTokenizer


def save_causal_base(folder: Path, parts: CausalBase) -> None:
    """Write the parts in fp32 below `folder`."""
    parts.backbone.save_pretrained(folder / _BASE, torch.float32)
    save_tokenizer(parts.tokenizer.hf_tokenizer, folder / _BASE, keep_normalizer=True)
    if not getattr(parts.backbone.config, "tie_word_embeddings", True):
        save_file({"lm_head.weight": parts.head.weight_VD.detach().float().contiguous()}, folder / _HEAD)


def open_causal_base(folder: Path, *, dtype: torch.dtype, device: str, task: str) -> CausalBase:
    """Load the parts, and measure that no token sees a later one.

    Args:
        folder: the folder above `base/`.
        dtype: of the weights.
        device: of the weights.
        task: what trained it, for complaints about the head.

    Raises:
        WorkError: its attention is not causal. Others: see `damage_as_input_error`.
    """
    tokenizer = load_saved_tokenizer(folder / _BASE)
    backbone = load_backbone(folder / _BASE, causal=True, dtype=dtype, device=device).eval()
    backbone.requires_grad_(False)
    head = _open_head(folder, backbone, task)
    check(backbone)
    return CausalBase(backbone, head, tokenizer)


@contextmanager
def damage_as_input_error(what: str, folder: Path, advice: str) -> Iterator[None]:
    """While open, files that are missing or damaged are one line.

    Raises:
        InputError: what is damaged, and what to do.
    """
    try:
        yield
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the {what} in {folder} is damaged ({reason}); {advice}") from error


def find_result(name: str | Path, file: str, *, option: str, what: str, task: str) -> Path:
    """The folder that holds `file`: the named one, or the `model` folder of the run that made it.

    Args:
        name: a folder.
        file: the name of the file with its facts.
        option: of the command line, for complaints.
        what: it is, for people.
        task: of the recipes that make one.

    Raises:
        InputError: nothing is there, or something else.
    """
    path = Path(name).expanduser()
    for folder in (path, path / "model"):
        if (folder / file).is_file():
            return folder
    if not path.is_dir():
        raise InputError(f"{option}: there is no folder {path}; train one with a recipe of the task {task}")
    if (path / "manifest.json").is_file() and not (path / "model").is_dir():
        raise InputError(f"{option}: {path} has no finished {what}; go on with: gemma4vec train --resume {path}")
    raise InputError(f"{option}: {path} holds no {what} ({file}); the task {task} writes one")


Facts = TypeVar("Facts", bound=Part)


def read_result_facts(file: Path, kind: type[Facts], newest: int, what: str, advice: str) -> Facts:
    """The facts of a file whose key `format` is at most `newest`.

    Raises:
        InputError: it is missing or damaged, or a later release wrote it.
    """
    value = read_json(file, f"the {what}", advice)
    if isinstance(value, dict) and isinstance(value.get("format"), int) and value["format"] > newest:
        raise InputError(f"{file} has format {value['format']}, this release reads {newest}; install a later gemma4vec")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{file} is damaged ({place}: {first['msg']}); {advice}") from error


def hash_written(folder: Path) -> str:
    """Let others read what safetensors wrote for its owner alone; the hash of all weights."""
    files = sorted(folder.rglob("*.safetensors"))
    for file in files:
        file.chmod(0o644)
    return hash_lines(f"{file.relative_to(folder)} {sha256_file(file)}" for file in files)


def _open_head(folder: Path, backbone: Backbone, task: str) -> LanguageModelHead:
    if not (folder / _HEAD).is_file():
        return load_head(backbone, folder / _BASE, task)
    weight_VD = load_file(folder / _HEAD)["lm_head.weight"].to(backbone.device, backbone.dtype)
    return LanguageModelHead(weight_VD, getattr(backbone.config, "final_logit_softcapping", None))
