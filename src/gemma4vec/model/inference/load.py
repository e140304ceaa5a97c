"""Open a model by name: a run, a saved model, a foreign sentence-transformers model, or an untrained base."""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.model.backbone.attention_probe import check
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.bases.weights import hash_settings, hash_weights, weight_files
from gemma4vec.model.encoder.build import build
from gemma4vec.model.encoder.check_config import check_positions, check_prompts, longest_text, read_config
from gemma4vec.model.encoder.outline import outline_encoder
from gemma4vec.model.inference.embedder import Embedder, SentenceTransformerEmbedder
from gemma4vec.model.save.read_model import SETTINGS_FILE, model_of, open_saved_model, read_settings, saved_fingerprint
from gemma4vec.recipe.inversion import DECODER_FILE, SUGGESTER_FILE
from gemma4vec.recipe.schema import Model
from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

_BASE_TOKENS = 512  # longest text of an untrained base, which has no limit of its own


def open_embedder(name: str, *, device: str | None, dtype: str | None, max_tokens: int | None) -> TextEmbedder:
    """Open a model for encoding; see `Embedder.load`."""
    found = choose_device()
    where = device or found.name
    if found.reason and device is None:
        logger.info(f"device: {where} ({found.reason})")
    chosen = choose_dtype(where, dtype or "auto").dtype
    path = _model_of_run(Path(name))
    if (path / SETTINGS_FILE).exists():
        return _open_saved(path, where, chosen, max_tokens)
    if (path / "modules.json").exists():
        return _open_sentence_transformers(path, name, where, chosen, max_tokens)
    return _open_base(name, where, chosen, max_tokens)


def find_model_folder(name: str) -> Path:
    """The folder whose weights `open_embedder` loads; a base is brought onto this machine.

    Raises:
        InputError: there is no such model, or a run without a finished one.
    """
    path = _model_of_run(Path(name))
    saved = (path / SETTINGS_FILE).exists() or (path / "modules.json").exists()
    return path if saved else resolve_base(name).path


def _model_of_run(run: Path) -> Path:
    """The model of a run folder; any other path as it is."""
    if (run / DECODER_FILE).is_file() or (run / "model" / DECODER_FILE).is_file():
        raise InputError(f"{run} is a decoder, which makes no vectors; use: gemma4vec invert MODEL --decoder {run}")
    if (run / SUGGESTER_FILE).is_file() or (run / "model" / SUGGESTER_FILE).is_file():
        raise InputError(f"{run} is a suggester, which makes no vectors; use: gemma4vec suggest {run} --query Q")
    if not run.is_dir() or not (run / "manifest.json").exists():
        return run
    model = run / "model"
    if not (model / SETTINGS_FILE).exists():
        raise InputError(f"{run} has no finished model yet; go on with: gemma4vec train --resume {run}")
    return model


def _open_saved(path: Path, device: str, dtype: torch.dtype, max_tokens: int | None) -> Embedder:
    try:
        return _load_saved(path, device, dtype, max_tokens)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
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
        fingerprint=sha256_text(_fingerprint_now(path, settings), str(limit), str(dtype))[:16],
        weights=hash_weights(path),
        max_tokens=limit,
        settings={"base": model.base},
        folder=path,
    )


def _fingerprint_now(path: Path, settings: dict[str, Any]) -> str:
    """The fingerprint of what is in the folder: the exported one while weights and settings are those of the export."""
    found = saved_fingerprint(path, settings)
    if found != settings["fingerprint"]:
        logger.warning(f"{path}: weights or settings are not those that were exported; this is another model")
    files = hash_settings(path)
    return found if settings.get("files", files) == files else sha256_text(found, files)


def _open_sentence_transformers(
    path: Path, name: str, device: str, dtype: torch.dtype, limit: int | None
) -> TextEmbedder:
    if not weight_files(path):
        raise InputError(f"{path} has modules.json but no weights (*.safetensors); is the download complete?")
    weights = hash_weights(path)
    fingerprint = sha256_text("published", weights, hash_settings(path), str(limit), str(dtype))[:16]
    own_name = path.resolve().parent.name if path.name == "model" else path.resolve().name
    return SentenceTransformerEmbedder(
        str(path),
        name=own_name or name,
        fingerprint=fingerprint,
        weights=weights,
        device=device,
        dtype=dtype,
        limit=limit,
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
    weights, files = hash_weights(base.path), hash_settings(base.path)
    fingerprint = sha256_text("base", weights, files, str(max_tokens), str(dtype))[:16]
    return Embedder(
        embedding_model,
        name=name.removeprefix("bundled:").replace("/", "--"),
        fingerprint=fingerprint,
        weights=weights,
        max_tokens=model.max_tokens,
    )
