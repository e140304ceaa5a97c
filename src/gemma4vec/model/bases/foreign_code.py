"""Refuse model folders whose opening would run code that came with them: Python files, foreign modules, pickles.

Three files name code: `auto_map` in config.json and tokenizer_config.json (transformers), the types in modules.json
(sentence-transformers), and the activation of a Dense module. A pickle holds code itself.
"""

import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.reading.json_values import JsonError, load_foreign_json

logger = logging.getLogger(__name__)

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_LIBRARY_MODULE = re.compile(r"sentence_transformers(\.[a-z_]\w*)*\.[A-Z]\w*")
_OUR_MODULE = re.compile(r"gemma4vec\.model\.[a-z_.]+\.[A-Z]\w*")
_ACTIVATION = re.compile(r"torch\.nn(\.modules)?(\.[a-z_]+)*\.[A-Z]\w*")


def has_our_module(folder: Path) -> bool:
    """Whether sentence-transformers needs a module of this package for the folder, and no other code.

    Raises:
        InputError: see `refuse_foreign_code`.
    """
    refuse_foreign_code(folder)
    return any(_OUR_MODULE.fullmatch(str(one.get("type"))) for one in _modules(folder)) and not own_code(folder)


def refuse_foreign_code(folder: Path) -> None:
    """Refuse a model folder that names code of others, or has its weights as pickles alone.

    A folder whose `auto_map` names code for a model type that transformers has itself is opened without that code, and
    one line in the log says so.

    Raises:
        InputError: one line with the file and what it names.
    """
    for module in _modules(folder):
        kind, path = str(module.get("type")), folder / str(module.get("path") or "")
        if not (_LIBRARY_MODULE.fullmatch(kind) or _OUR_MODULE.fullmatch(kind)):
            raise InputError(
                f"{folder / 'modules.json'} names the class {kind!r}, which is not sentence-transformers' own; code "
                "that comes with a model is never run, so use another model"
            )
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{folder / 'modules.json'} names the folder {module.get('path')!r} outside its own")
        activation = str(_settings(path / "config.json").get("activation_function"))
        if "." in activation and not _ACTIVATION.fullmatch(activation):
            raise InputError(
                f"{path / 'config.json'} names the activation {activation!r}, which is not torch's own; code that "
                "comes with a model is never run, so use another model"
            )
        refuse_pickles(path)
    refuse_pickles(folder)
    for file in own_code(folder):
        _say_once(str(file.absolute()))


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder with Python pickles and no safetensors file: reading a pickle can run code.

    Raises:
        InputError: it names the first pickle.
    """
    if next(folder.glob("*.safetensors"), None) is not None:
        return
    pickles = sorted(file for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{pickles[0]} holds weights as a Python pickle, which can run code when it is read; save the model as "
            "safetensors (transformers: model.save_pretrained), or take a revision that has them"
        )


def own_code(folder: Path) -> list[Path]:
    """The settings in a model folder and its modules' folders whose `auto_map` names Python code."""
    places = dict.fromkeys([folder, *(folder / str(module.get("path") or "") for module in _modules(folder))])
    files = [place / name for place in places for name in ("config.json", "tokenizer_config.json")]
    return [file for file in files if _settings(file).get("auto_map")]


def needs_own_code(folder: Path, error: Exception) -> InputError | None:
    """What to raise where a library refused a folder because it needs its own code; None: for another reason."""
    if "trust_remote_code" not in str(error) and "auto_map" not in str(error):
        return None
    found = next(iter(own_code(folder)), folder / "config.json")
    return InputError(
        f"model.base: {found} needs Python code that comes with the model (auto_map), which is never run; use a base "
        "whose model type transformers has itself"
    )


@cache
def _say_once(file: str) -> None:
    logger.info(f"{file} names code of its own (auto_map), which is not run: transformers' own classes are used")


def _modules(folder: Path) -> Iterator[dict[str, Any]]:
    file = folder / "modules.json"
    if not file.is_file():
        return
    try:
        found = load_foreign_json(file)
    except (OSError, JsonError) as error:
        raise InputError(f"model.base: {file} cannot be read ({error})") from error
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputError(f"model.base: {file} cannot be read (a list of modules is expected)")
    yield from found


def _settings(file: Path) -> dict[str, Any]:
    """A JSON object; empty where it is missing or damaged, which its reader reports."""
    try:
        found = load_foreign_json(file) if file.is_file() else None
    except (OSError, JsonError):
        return {}
    return found if isinstance(found, dict) else {}
