"""What a model folder contains, as hashes: its weights, and apart from them the files that say how they are read.

Names, sizes and dates do not identify a model: other weights of the same shapes have the same ones. Contents are
hashed once and remembered (`machine.file_hashes`).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from gemma4vec.files import sha256_text
from gemma4vec.machine.file_hashes import file_hash

_SAFE, _PICKLED = (".safetensors",), (".bin", ".pt", ".pth")
_READ_WITH_WEIGHTS = (".json", ".model", ".txt", ".jinja", ".py")
# Folders in a published model that hold the same weights for another program, or a training's state.
_OTHER_FORMATS = ("onnx", "openvino", "original", "checkpoint-")
# Notes about a folder, which change nothing in how its weights are read.
_NOTES = {"base.json", "gemma4vec.json"}


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights, sorted: those of a Hugging Face folder, or of all modules of a
    sentence-transformers folder. Pickled weights next to `model*.safetensors` are never read and do not count.
    """
    found = list(_files(folder, _SAFE))
    has_safe = {file.parent for file in found if file.name.startswith("model")}
    return sorted([*found, *(file for file in _files(folder, _PICKLED) if file.parent not in has_safe)])


def hash_weights(folder: Path) -> str:
    """SHA-256 over the names and contents of the weights' files, 64 hexadecimal digits; a copy has the same one.

    Raises:
        InputError: a file cannot be read.
    """
    return hash_lines(f"{file.relative_to(folder)} {file_hash(file)}" for file in weight_files(folder))


def hash_lines(lines: Iterable[str]) -> str:
    """Return what `hash_weights` returns, for lines `NAME SHA256` in the order of the names."""
    return sha256_text("weights", *lines)


def hash_settings(folder: Path) -> str:
    """SHA-256 over configuration, tokenizer, prompts and code of a model folder, 64 hexadecimal digits.

    Raises:
        InputError: a file cannot be read.
    """
    files = sorted(file for file in _files(folder, _READ_WITH_WEIGHTS) if file.name not in _NOTES)
    return sha256_text("settings", *(f"{file.relative_to(folder)} {file_hash(file)}" for file in files))


def _files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files of these kinds in the folder, and below it if its modules are in folders of their own."""
    deep = (folder / "modules.json").is_file()
    for file in folder.rglob("*") if deep else folder.iterdir():
        inside = file.relative_to(folder).parts[:-1]
        if file.suffix in suffixes and file.is_file() and not any(map(_is_other, inside)):
            yield file


def _is_other(name: str) -> bool:
    return name.startswith((".", *_OTHER_FORMATS))
