"""Tensors of model folders in blocks, against safetensors' own reader."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.files import write_json
from gemma4vec.pipeline.soup import tensors
from gemma4vec.pipeline.soup.tensors import Key, Place, StartTensors, TensorFolder, row_ranges, write_tensors


def values() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "embed.weight": torch.randn(7, 3, generator=generator),
        "norm.weight": torch.randn(5, generator=generator).bfloat16(),
        "scale": torch.tensor(2.5),
        "ids": torch.arange(6).reshape(2, 3),
        "flags": torch.tensor([True, False, True]),
        "empty": torch.zeros(0, 4),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(values(), tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize("block", [1, 4, 6, 1000])
def test_a_file_that_is_read_and_written_in_blocks_is_the_same(
    folder: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "BLOCK_VALUES", block)
    found = TensorFolder(folder)

    def blocks(name: str) -> Iterator[Tensor]:
        return found.blocks(Key("model", name))

    places = {key.name: place for key, place in found.places.items()}
    write_tensors(folder / "copy.safetensors", places, blocks)
    copy = load_file(folder / "copy.safetensors")
    assert copy.keys() == values().keys()
    for name, value in values().items():
        assert copy[name].dtype == (torch.float32 if value.is_floating_point() else value.dtype)
        assert torch.equal(copy[name], value.float() if value.is_floating_point() else value)
    most = max(tensor.numel() for name in places for tensor in blocks(name))
    assert most <= max(block, 3)  # one row is the least


def test_ranges_cover_every_row_once() -> None:
    for shape in [(7, 3), (1,), (0, 4), (5, 2, 2)]:
        rows = [row for start, stop in row_ranges(shape) for row in range(start, stop)]
        assert rows == list(range(shape[0]))
    assert list(row_ranges(())) == [(0, 1)]


def test_shards_and_modules_have_the_keys_of_a_whole_model(tmp_path: Path) -> None:
    write_json(tmp_path / "modules.json", [])
    save_file({"a": torch.zeros(2)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "model-00002-of-00002.safetensors")
    save_file({"query": torch.ones(1)}, tmp_path / "readout.safetensors")
    (tmp_path / "2_Dense").mkdir()
    save_file({"linear.weight": torch.ones(1, 1)}, tmp_path / "2_Dense" / "model.safetensors")
    keys = [("model", "a"), ("model", "b"), ("readout", "query"), ("2_Dense/model", "linear.weight")]
    assert set(TensorFolder(tmp_path).places) == {Key(*key) for key in keys}
    assert str(Key("model", "a")) == "a" and str(Key("readout", "query")) == "readout: query"


def places(names: list[str], rows: int = 2) -> dict[Key, Place]:
    return {Key("model", name): Place(Path("x"), name, (rows,), "F32") for name in names}


def test_a_start_is_read_under_the_names_of_its_descendants(tmp_path: Path) -> None:
    save_file(
        {f"model.{name}": torch.full((2,), n) for n, name in enumerate(["x.w", "y.w"])}, tmp_path / "model.safetensors"
    )
    start = StartTensors(tmp_path, places(["x.w", "y.w"]) | {Key("readout", "q"): Place(Path("x"), "q", (1,), "F32")})
    assert set(start.places) == {Key("model", "x.w"), Key("model", "y.w")}
    assert next(start.blocks(Key("model", "y.w"))).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("names", "rows"),
    [(["encoder.x.w", "decoder.x.w"], 2), (["x.other"], 2), (["model.x.w"], 3), (["prefix.x.w"], 2)],
)
def test_a_start_with_unclear_names_has_none_of_them(tmp_path: Path, names: list[str], rows: int) -> None:
    save_file({name: torch.zeros(2) for name in names}, tmp_path / "model.safetensors")
    found = StartTensors(tmp_path, places(["x.w"], rows)).places
    assert bool(found) == (names == ["prefix.x.w"])


def test_a_cut_file_is_one_line(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"model.safetensors is damaged \(.*\); export the model again from its run"):
        TensorFolder(folder)
