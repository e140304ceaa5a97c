"""Open a model by name: a run, a saved model, a foreign sentence-transformers model, or an untrained base."""

import logging
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError

from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.model.backbone.attention_probe import check
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.encoder.build import build
from gemma4vec.model.encoder.check_config import check_positions, check_prompts, longest_text, read_config
from gemma4vec.model.encoder.outline import outline_encoder
from gemma4vec.model.inference.embedder import Embedder, SentenceTransformerEmbedder
from gemma4vec.model.save.read_model import SETTINGS_FILE, model_of, open_saved_model, read_settings
from gemma4vec.recipe.schema import Model
from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

SMALL_FILE = 1_000_000  # bytes; larger files are vocabularies
_BASE_TOKENS = 512  # longest text of an untrained base, which has no limit of its own


def open_embedder(name: str, *, device: str | None, dtype: str | None, max_tokens: int | None) -> TextEmbedder:
    """Open a model for encoding; see `Embedder.load`."""
    found = choose_device()
    where = device or found.name
    if found.reason and device is None:
        logger.info(f"device: {where} ({found.reason})")
    chosen = choose_dtype(where, dtype or "auto").dtype
    path = Path(name)
    if path.is_dir() and (path / "manifest.json").exists():
        path = _model_of_run(path)
    if (path / SETTINGS_FILE).exists():
        return _open_saved(path, where, chosen, max_tokens)
    if (path / "modules.json").exists():
        return _open_sentence_transformers(path, name, where, chosen, max_tokens)
    return _open_base(name, where, chosen, max_tokens)


def _model_of_run(run: Path) -> Path:
    model = run / "model"
    if not (model / SETTINGS_FILE).exists():
        raise InputError(f"{run} has no finished model yet; go on with: gemma4vec train --resume {run}")
    return model


def _open_saved(path: Path, device: str, dtype: torch.dtype, max_tokens: int | None) -> Embedder:
    try:
        return _load_saved(path, device, dtype, max_tokens)
    except (ValidationError, OSError, SafetensorError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the model in {path} is damaged ({reason}); export it again from its run") from error


def _load_saved(path: Path, device: str, dtype: torch.dtype, max_tokens: int | None) -> Embedder:
    settings = read_settings(path)
    model = model_of(settings)
    limit = min(max_tokens or model.max_tokens, model.max_tokens)
    built = open_saved_model(path, model, dtype=dtype, device=device)
    if max_tokens is not None:
        check_prompts(built.tokenizer, built.prompts, limit - built.encoder.readout.reserved, "max_tokens")
    return Embedder(
        built,
        name=settings.get("name", path.name),
        fingerprint=sha256_text(settings["fingerprint"], str(limit), str(dtype))[:16],
        max_tokens=limit,
        settings={"base": model.base},
        folder=path,
    )


def _open_sentence_transformers(
    path: Path, name: str, device: str, dtype: torch.dtype, limit: int | None
) -> TextEmbedder:
    weights = sorted(path.rglob("*.safetensors")) + sorted(path.rglob("*.bin"))
    if not weights:
        raise InputError(f"{path} has modules.json but no weights (*.safetensors); is the download complete?")
    sizes = [f"{file.relative_to(path)}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in weights]
    # Small files contain pooling, prompts and limits, and people edit some of them.
    small = [file for file in sorted(path.rglob("*.json")) if file.stat().st_size < SMALL_FILE]
    settings = [part for file in small for part in (str(file.relative_to(path)), file.read_text("utf-8", "replace"))]
    fingerprint = sha256_text(*settings, *sizes, str(limit), str(dtype))[:16]
    own_name = path.resolve().parent.name if path.name == "model" else path.resolve().name
    return SentenceTransformerEmbedder(
        str(path), name=own_name or name, fingerprint=fingerprint, device=device, dtype=dtype, limit=limit
    )


def _open_base(name: str, device: str, dtype: torch.dtype, max_tokens: int | None) -> TextEmbedder:
    """An untrained base: the mean of its causal states, without prompts. A baseline, not a recommendation."""
    base = resolve_base(name)
    if (Path(base.path) / "modules.json").exists():
        return _open_sentence_transformers(Path(base.path), name, device, dtype, max_tokens)
    config = read_config(base.path)
    if max_tokens is not None:
        check_positions(max_tokens, config, "max_tokens")
    limit = max_tokens or min(_BASE_TOKENS, longest_text(config) or _BASE_TOKENS)
    model = Model(base=name, attention="causal", lora=None, prompts="none", max_tokens=limit)
    outline = outline_encoder(model, base.path)  # a base that cannot be loaded is refused in one line
    embedding_model = build(model, base.path, dtype=dtype, device=device, tokenizer=outline.tokenizer)
    check(embedding_model.encoder.backbone)
    fingerprint = sha256_text("base", base.name, str(base.revision), str(max_tokens), str(dtype))[:16]
    return Embedder(
        embedding_model,
        name=name.removeprefix("bundled:").replace("/", "--"),
        fingerprint=fingerprint,
        max_tokens=model.max_tokens,
    )
