"""Check a model folder's weight files by their sizes and headers: missing shards, cut files, pointers, adapters.

A safetensors file is 8 bytes with the header's length (little endian), the header (JSON with each tensor's dtype, shape
and span), then the tensors (https://github.com/huggingface/safetensors, "Format"). No tensor is read.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.reading.json_values import load_foreign_json, loads_json

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_WHOLE, _INDEX, _PICKLED_INDEX = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin.index.json"
_DESCRIPTION = ("config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", _INDEX, _PICKLED_INDEX)
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
# How files begin that stand for others, and what brings the real ones.
_POINTERS = (
    (b"version https://git-lfs.github.com/", "a git-lfs pointer; fetch the file itself: git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer; fetch the file itself: git annex get"),
)
_LONGEST_POINTER = 1024  # bytes
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
# Of a value, by the format's names; those of packed values (F4, F6) are not among them.
_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class TensorHeader:
    """A tensor as a file's header describes it.

    Attributes:
        file: name of the file.
        dtype: as safetensors writes it, such as `BF16`.
        shape: its shape.
    """

    file: str
    dtype: str
    shape: tuple[int, ...]


def check_weight_files(folder: Path) -> None:
    """Refuse a model folder whose weights cannot be loaded, or are not its alone.

    Raises:
        InputError: one line that names the file: a shard of the index is missing, a file is cut, damaged or a pointer,
            or an adapter is next to the weights.
    """
    for file in (folder / name for name in _DESCRIPTION):
        refuse_pointer(file)
    if (folder / _ADAPTER[0]).is_file():
        raise InputError(
            f"model.base: {folder} has full weights and an adapter ({_ADAPTER[0]}), which would be loaded with them in "
            "silence; move the adapter's files to a folder of their own, or merge it (peft: merge_and_unload)"
        )
    known = tensor_headers(folder)
    for file in _pickled_files(folder):
        refuse_pointer(file)
    index = folder / _INDEX
    if not index.is_file() or (folder / _WHOLE).exists():
        return
    for name, shard in read_weight_map(index).items():
        if name not in known:
            raise InputError(f"model.base: {folder / shard} lacks {name!r}, which {index.name} expects in it")


def tensor_headers(folder: Path) -> dict[str, TensorHeader]:
    """Name -> description of every tensor in the folder's safetensors files that belong to the model.

    With an index, only the files that it names; without one, `model.safetensors` or else all.

    Raises:
        InputError: a file is a pointer, cut or damaged.
    """
    return {
        name: TensorHeader(file.name, dtype, shape)
        for file in _model_files(folder)
        for name, dtype, shape in read_header(file)
    }


def _model_files(folder: Path) -> list[Path]:
    """The safetensors files that the library loads; none for a folder with pickled weights or none."""
    whole, index = folder / _WHOLE, folder / _INDEX
    if whole.exists() or whole.is_symlink():
        return [whole]  # the library takes it before an index
    if index.is_file():
        return _shards(index)
    return sorted(file for file in folder.glob("*.safetensors") if file.name not in _ADAPTER)


def _pickled_files(folder: Path) -> list[Path]:
    index = folder / _PICKLED_INDEX
    if index.is_file() and not next(folder.glob("*.safetensors"), None):
        return _shards(index)
    return sorted(folder.glob("pytorch_model*.bin"))


def _shards(index: Path) -> list[Path]:
    """The files that an index names, each once; refuses one that is missing. A broken link is not missing."""
    files = [index.parent / name for name in sorted(set(read_weight_map(index).values()))]
    missing = [file for file in files if not file.exists() and not file.is_symlink()]
    if missing:
        raise InputError(
            f"model.base: {missing[0]} is missing, {len(missing)} of the {len(files)} files that {index.name} names; "
            "is the download complete?"
        )
    return files


def read_weight_map(index: Path) -> dict[str, str]:
    """Name of each tensor -> name of its file.

    Raises:
        InputError: the index is damaged, or names a file outside its folder.
    """
    try:
        found = load_foreign_json(index)["weight_map"]
        if not isinstance(found, dict) or not found or not all(isinstance(value, str) for value in found.values()):
            raise TypeError("weight_map: names of tensors with their files are expected")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"model.base: {index} is damaged ({error}); download it again") from error
    outside = next((name for name in found.values() if Path(name).name != name), None)
    if outside is not None:
        raise InputError(f"model.base: {index} names {outside!r}, which is no file of its folder")
    return {str(name): str(file) for name, file in found.items()}


def refuse_pointer(file: Path) -> None:
    """Refuse a file that only says where the real one is; a file that does not exist passes.

    Raises:
        InputError: a git-lfs or git-annex pointer, or a link to nothing.
    """
    if file.is_symlink() and not file.exists():
        raise InputError(
            f"model.base: {file} is a link to a file that is not there ({file.readlink()}); is the download complete?"
        )
    if not file.is_file():
        return
    try:
        with file.open("rb") as stream:
            start = stream.read(_LONGEST_POINTER)
    except OSError as error:
        raise InputError(f"model.base: {file} cannot be read ({error.strerror or error})") from error
    for begins, meaning in _POINTERS:
        if start.startswith(begins):
            raise InputError(f"model.base: {file} is {meaning}")


def read_header(file: Path) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name, dtype and shape of each tensor in a safetensors file.

    Raises:
        InputError: the file is a pointer, empty, cut or damaged.
    """
    refuse_pointer(file)
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            if size < _LENGTH_BYTES or not 2 <= length <= _LONGEST_HEADER:
                raise ValueError("it is empty or cut" if size < _LENGTH_BYTES else "it is no safetensors file")
            header = loads_json(stream.read(length), twice=True) if _LENGTH_BYTES + length <= size else {}
        found = [(str(name), *_entry(entry)) for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"model.base: {file} is damaged ({error}); download it again") from error
    expected = _LENGTH_BYTES + length + max((end for *_, end in found), default=0)
    if expected != size:
        what = "cut" if size < expected else "damaged"
        raise InputError(
            f"model.base: {file} is {what}: {size:,} bytes, its header promises {expected:,}; download it again"
        )
    return ((name, dtype, shape) for name, dtype, shape, _ in found)


def _entry(entry: dict[str, object]) -> tuple[str, tuple[int, ...], int]:
    """Dtype, shape and last byte of a tensor in a header."""
    shape, span = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or not isinstance(span, list) or not all(isinstance(one, int) for one in span):
        raise TypeError("a tensor has no shape or no span")
    (start, end), dtype = span, str(entry["dtype"])
    count = math.prod(shape)
    fits = end - start == count * _BYTES[dtype] if dtype in _BYTES else (start == end) == (count == 0)
    if not 0 <= start <= end or not fits:
        raise ValueError("a tensor's span does not fit its shape")
    return dtype, tuple(int(one) for one in shape), int(end)
