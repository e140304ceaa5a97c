"""Weight files that cannot be loaded are named before anything is trained: by size and header alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_shard import write_shard

from gemma4vec.errors import InputError
from gemma4vec.model.bases.resolve import check_model_folder
from gemma4vec.model.bases.weight_files import check_weight_files, tensor_headers

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1\nsize 537\n"
ANNEX = b"/annex/objects/SHA256E-s537--4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1.safetensors\n"


def write_sharded(folder: Path) -> Path:
    """A model of two shards and their index."""
    folder.mkdir(exist_ok=True)
    shards = {"model-00001-of-00002.safetensors": {"a": [2, 3]}, "model-00002-of-00002.safetensors": {"b": [4, 1]}}
    for name, tensors in shards.items():
        write_shard(folder / name, tensors)
    where = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to(".git/annex/objects/xx/yy")


SECOND = "model-00002-of-00002.safetensors"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (
        lambda f: (f / SECOND).unlink(),
        rf"{SECOND} is missing, 1 of the 2 files that model\.safetensors\.index",
    ),
    "cut": (lambda f: cut(f / SECOND), rf"{SECOND} is cut: \d+ bytes, its header promises \d+; download it again"),
    "cut in the header": (lambda f: (f / SECOND).write_bytes((f / SECOND).read_bytes()[:20]), rf"{SECOND} is cut"),
    "longer": (
        lambda f: (f / SECOND).write_bytes((f / SECOND).read_bytes() + b"x"),
        rf"{SECOND} is damaged: \d+ bytes",
    ),
    "other bits": (
        lambda f: (f / SECOND).write_bytes((f / SECOND).read_bytes().replace(b'"F32"', b'"F16"')),
        rf"{SECOND} is damaged \(a tensor's span does not fit its shape\)",
    ),
    "empty": (lambda f: (f / SECOND).write_bytes(b""), rf"{SECOND} is damaged \(it is empty or cut\)"),
    "a web page": (
        lambda f: (f / SECOND).write_bytes(b"<html><body>404 Not Found</body></html>"),
        "no safetensors file",
    ),
    "git-lfs pointer": (lambda f: (f / SECOND).write_bytes(LFS), rf"{SECOND} is a git-lfs pointer; .* git lfs pull"),
    "git-annex pointer": (
        lambda f: (f / SECOND).write_bytes(ANNEX),
        rf"{SECOND} is a git-annex pointer; .* git annex get",
    ),
    "link to nothing": (lambda f: link_to_nothing(f / SECOND), rf"{SECOND} is a link to a file that is not there"),
    "config is a pointer": (lambda f: (f / "config.json").write_bytes(LFS), r"config\.json is a git-lfs pointer"),
    "tokenizer is a pointer": (
        lambda f: (f / "tokenizer.json").write_bytes(LFS),
        r"tokenizer\.json is a git-lfs pointer",
    ),
    "another shard": (
        lambda f: write_shard(f / SECOND, {"c": [1, 1]}),
        rf"{SECOND} lacks 'b', which model\.safetensors",
    ),
    "index cut": (lambda f: cut(f / "model.safetensors.index.json"), r"index\.json is damaged .*download it again"),
    "index of nothing": (lambda f: (f / "model.safetensors.index.json").write_text("{}"), r"index\.json is damaged"),
    "index leads outside": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}'),
        r"names '\.\./other\.safetensors', which is no file of its folder",
    ),
    "adapter": (
        lambda f: (f / "adapter_config.json").write_text("{}"),
        r"has full weights and an adapter .*merge_and_unload",
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_what_cannot_be_loaded_is_named(tmp_path: Path, damage: str) -> None:
    folder = write_sharded(tmp_path / "base")
    check_model_folder(folder)
    change, message = DAMAGE[damage]
    change(folder)
    with pytest.raises(InputError, match=message) as caught:
        check_model_folder(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_one_file_goes_before_an_index(tmp_path: Path) -> None:
    """As the library loads: an index that a later save left behind does not matter."""
    folder = write_sharded(tmp_path)
    write_shard(folder / "model.safetensors", {"a": [5, 5]})
    (folder / SECOND).unlink()
    check_weight_files(folder)
    assert {name: header.shape for name, header in tensor_headers(folder).items()} == {"a": (5, 5)}


def test_headers_of_all_shards_are_read(tmp_path: Path) -> None:
    found = tensor_headers(write_sharded(tmp_path))
    assert {name: (header.file[6:11], header.dtype, header.shape) for name, header in found.items()} == {
        "a": ("00001", "F32", (2, 3)),
        "b": ("00002", "F32", (4, 1)),
    }


def test_a_shard_of_pickled_weights_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(b"x")
    where = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    with pytest.raises(InputError, match=r"pytorch_model-00002-of-00002\.bin is missing"):
        check_weight_files(tmp_path)


def test_a_transformer_in_a_subfolder_is_checked_too(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path / "0_Transformer")
    modules = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    check_model_folder(tmp_path)
    cut(folder / SECOND)
    with pytest.raises(InputError, match="is cut"):
        check_model_folder(tmp_path)
