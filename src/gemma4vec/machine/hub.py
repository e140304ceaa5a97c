"""Hub models: cached folders are used without network access; other models are downloaded, with a short time limit."""

import logging
import re
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.machine.hub_errors import explain_hub_error
from gemma4vec.machine.network import ping_hub
from gemma4vec.reading.json_values import load_foreign_json

logger = logging.getLogger(__name__)

# One file format is enough, and no weights of other frameworks: some repositories hold the same model five times.
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md"]
_DESCRIPTION = ["*.json", "*.model", "*.txt", "*.jinja"]
_UNWANTED = ["original/*", "onnx/*", "openvino/*", "*.gguf"]
_PICKLED = "pytorch_model.bin"
_CONFIGURED = (".Dense", ".Pooling")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model")
_SHARD = re.compile(r"-\d+-of-\d+(?=\.)")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w./-]+)?")
_ANSWER_SECONDS = 4.0


def is_hub_id(name: str) -> bool:
    """Whether a name has the form `owner/model` or `model`, with `@revision` behind it if wanted."""
    return _HUB_ID.fullmatch(name) is not None


def fetch(name: str) -> tuple[Path, str]:
    """The folder of a hub model on this machine and its commit; downloads what is not cached.

    Args:
        name: `owner/model` or `owner/model@revision`.

    Raises:
        InputError: not cached and the hub cannot be reached, or no such model, or access is restricted.
    """
    repository, _, revision = name.partition("@")
    cached = _snapshot(repository, revision or None, only_local=True)
    lacking = missing_file(cached) if isinstance(cached, Path) else None
    if isinstance(cached, Path) and lacking is None:
        return cached, cached.name
    state = ping_hub(_ANSWER_SECONDS)
    if not state.reachable:
        how = "not cached" if lacking is None else f"cached in part ({lacking} is missing)"
        raise InputError(
            f"{name} is {how} on this machine and the hub is out of reach: {state.reason}; "
            "without a hub use bundled:gemma-3-270m or bundled:smollm2-135m, or a local folder"
        )
    logger.info(f"downloading {name}")
    fetched = _snapshot(repository, revision or None, only_local=False)
    if isinstance(fetched, Path):
        return fetched, fetched.name
    raise InputError(f"{name} cannot be had from the hub: {explain_hub_error(fetched, 'model')}")


def fetch_description(name: str, *, key: str = "model.base") -> tuple[Path, bool, int | None]:
    """The folder with a hub model's config and tokenizer, whether its weights are there too, and their bytes.

    Of a model that is not cached only the small files are downloaded. Bytes are None where the hub does not tell. `key`
    of the recipe names the model.

    Raises:
        InputError: as `fetch`.
    """
    repository, _, revision = name.partition("@")
    cached = _snapshot(repository, revision or None, only_local=True)
    if isinstance(cached, Path):
        whole = missing_file(cached) is None
        if whole or missing_file(cached, weights=False) is None:
            size = sum(file.stat().st_size for file in cached.glob("*.safetensors")) if whole else 0
            return cached, whole, size or None
    state = ping_hub(_ANSWER_SECONDS)
    if not state.reachable:
        raise InputError(
            f"{key}: {name} is not cached on this machine and the hub is out of reach ({state.reason}), and its "
            "config.json and tokenizer are needed; give a local folder with them, or bundled:gemma-3-270m"
        )
    logger.info(f"downloading config and tokenizer of {name}, not its weights")
    fetched = _snapshot(repository, revision or None, only_local=False, wanted=_DESCRIPTION)
    if isinstance(fetched, Path):
        return fetched, False, _weight_bytes(repository, revision or None)
    raise InputError(f"{name} cannot be had from the hub: {explain_hub_error(fetched, 'model')}")


def _weight_bytes(repository: str, revision: str | None) -> int | None:
    """Size of the weights in bytes, as the hub reports it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        files = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=_ANSWER_SECONDS).siblings
    except (HfHubHTTPError, OSError):
        return None
    return sum(file.size or 0 for file in files or [] if file.rfilename.endswith(".safetensors")) or None


def _snapshot(
    repository: str, revision: str | None, *, only_local: bool, wanted: list[str] = _WANTED
) -> Path | Exception:
    """Return the folder, or the error."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, RevisionResolutionError

    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=wanted,
            ignore_patterns=_UNWANTED,
            local_files_only=only_local,
            etag_timeout=_ANSWER_SECONDS,
        )
        return Path(folder)
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError, RevisionResolutionError, OSError) as error:
        return error


def missing_file(folder: Path, *, weights: bool = True) -> str | None:
    """The first file that a cached model folder lacks, as its own small files tell; None if it is whole.

    A download that was interrupted, and a program that needed only one file, leave some of a model's files.

    Args:
        folder: of a Hugging Face model or a sentence-transformers model.
        weights: whether weights are needed too.
    """
    listed = _read(folder / "modules.json") if (folder / "modules.json").is_file() else []
    modules = [module for module in listed if isinstance(module, dict)]
    parts = [(folder / str(module.get("path", "")), str(module.get("type", ""))) for module in modules]
    first = parts[0][0] if parts else folder
    wanted = [first / "config.json", *(part / "config.json" for part, kind in parts if kind.endswith(_CONFIGURED))]
    if weights:
        wanted += [part / "model.safetensors" for part, kind in parts if kind.endswith(".Dense")]
    for file in wanted:
        if not file.is_file() and not (file.name == "model.safetensors" and (file.parent / _PICKLED).is_file()):
            return str(file.relative_to(folder))
    if not any((place / name).is_file() for place in {folder, first} for name in _TOKENIZERS):
        return "tokenizer.json"
    return _missing_weights(first) if weights else None


def _missing_weights(folder: Path) -> str | None:
    if (folder / "model.safetensors").is_file():
        return None
    for index in (folder / "model.safetensors.index.json", folder / "pytorch_model.bin.index.json"):
        if index.is_file():
            shards = _read(index)
            named = set(shards.get("weight_map", {}).values()) if isinstance(shards, dict) else set()
            return next((str(name) for name in sorted(map(str, named)) if not (folder / name).is_file()), None)
    found = [file.name for pattern in ("*.safetensors", "pytorch_model*.bin") for file in folder.glob(pattern)]
    if not found:
        return "model.safetensors"
    shard = next((name for name in sorted(found) if _SHARD.search(name)), None)
    # The parts of a model cannot be read without their index.
    return None if shard is None else f"{_SHARD.sub('', shard)}.index.json"


def _read(file: Path) -> Any:
    """The values of a small JSON file; none where it is damaged, which opening the model reports."""
    try:
        return load_foreign_json(file)
    except (OSError, ValueError):
        return []
