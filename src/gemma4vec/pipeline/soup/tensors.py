"""The tensors of a model folder by name, read in blocks of rows, and a file of tensors that is written in blocks.

So an operation over several models holds one block of each of them, whatever the size of the models. A tensor's key is
the part of the model that it belongs to, such as "model", "readout" or "2_Dense/model", and its name there: two models
of the same parts have the same keys, also where one of them is cut into shards.
"""

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.model.bases.sentence_transformers_folder import transformer_folder
from gemma4vec.model.bases.weights import weight_files

BLOCK_VALUES = 1 << 21  # values of a block: 16 MB in float64
_SHARD = re.compile(r"-\d+-of-\d+$")
_DTYPES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOATS = {"F64", "F32", "F16", "BF16"}


class Key(NamedTuple):
    """The name of a tensor in a model folder."""

    part: str
    name: str

    def __str__(self) -> str:
        return self.name if self.part == "model" else f"{self.part}: {self.name}"


class Place(NamedTuple):
    """Where a tensor is.

    Attributes:
        file: its file.
        name: its name in the file.
        shape: its shape.
        dtype: safetensors' name of its type, such as "F32".
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_float(self) -> bool:
        """Whether it holds weights, not indices or flags."""
        return self.dtype in _FLOATS


class TensorFolder:
    """The tensors of a model folder that gemma4vec or sentence-transformers wrote, or of a base.

    Attributes:
        folder: the model's folder.
        places: each tensor's place; no value is read.

    Raises:
        InputError: a file is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: dict[Path, Any] = {}
        self.places: dict[Key, Place] = {}
        for file in weight_files(folder):
            if file.suffix != ".safetensors":
                continue
            part = _SHARD.sub("", str(file.relative_to(folder).with_suffix("")))
            with self._errors(file):
                opened = self._files[file] = safe_open(file, framework="pt")
                for name in sorted(opened.keys()):
                    found = opened.get_slice(name)
                    self.places[Key(part, name)] = Place(file, name, tuple(found.get_shape()), str(found.get_dtype()))

    def rows(self, key: Key, start: int, stop: int) -> Tensor:
        """Return rows `start` to `stop` of a tensor in its own type, `[stop - start, ...]`; a scalar whole."""
        place = self.places[key]
        with self._errors(place.file):
            if not place.shape:
                return self._files[place.file].get_tensor(place.name)
            return self._files[place.file].get_slice(place.name)[start:stop]

    def blocks(self, key: Key) -> Iterator[Tensor]:
        """Yield a tensor in blocks of rows."""
        for start, stop in row_ranges(self.places[key].shape):
            yield self.rows(key, start, stop)

    @contextlib.contextmanager
    def _errors(self, file: Path) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{file} is damaged ({reason}); export the model again from its run") from error


class StartTensors(TensorFolder):
    """The tensors of what models were trained from, under the keys of these models.

    A base may have its names behind a prefix, such as "model.". Parts that it lacks, such as a head, are not there.

    Args:
        folder: a base or a model folder.
        places: the tensors of a model that was trained from it.
    """

    def __init__(self, folder: Path, places: Mapping[Key, Place]):
        super().__init__(folder)
        inside = transformer_folder(folder)
        own = "model" if inside == folder else f"{inside.relative_to(folder)}/model"
        found = {key: place for key, place in self.places.items() if key.part != own}
        base = {key.name: place for key, place in self.places.items() if key.part == own}
        wanted = {key.name: place for key, place in places.items() if key.part == "model"}
        prefix = _prefix(base, wanted)
        if prefix is not None:
            found |= {Key("model", name): base[prefix + name] for name in wanted}
        self.places = {key: place for key, place in found.items() if key in places and place.shape == places[key].shape}


def _prefix(base: Mapping[str, Place], wanted: Mapping[str, Place]) -> str | None:
    """The one prefix under which a base has all the wanted names; None if there is none, or several."""
    common: set[str] | None = None
    for name, place in wanted.items():
        fitting = {
            other.removesuffix(name)
            for other, at in base.items()
            if (other == name or other.endswith(f".{name}")) and at.shape == place.shape
        }
        common = fitting if common is None else common & fitting
        if not common:
            return None
    return next(iter(common)) if common and len(common) == 1 else None


def row_ranges(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the blocks of rows of a tensor; one block for a scalar."""
    if not shape:
        yield 0, 1
        return
    step = max(1, BLOCK_VALUES // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def write_tensors(file: Path, places: Mapping[str, Place], blocks: Callable[[str], Iterator[Tensor]]) -> None:
    """Write a safetensors file block by block: weights as fp32, other values in their own type.

    Args:
        file: the new file, which safetensors' own readers open.
        places: name -> shape and type of the tensors.
        blocks: the blocks of rows of a tensor, by its name.
    """
    types = {name: "F32" if place.is_float else place.dtype for name, place in places.items()}
    order = sorted(places, key=lambda name: (-_DTYPES[types[name]], name))  # wide values first, so that all are aligned
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        size = math.prod(places[name].shape) * _DTYPES[types[name]]
        header[name] = {"dtype": types[name], "shape": list(places[name].shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            begin = stream.tell()
            for block in blocks(name):
                value = block.float() if places[name].is_float else block
                stream.write(value.contiguous().view(-1).view(torch.uint8).numpy().data)
            written = stream.tell() - begin
            first, last = header[name]["data_offsets"]
            assert written == last - first, f"{name}: {written} bytes instead of {last - first}"
