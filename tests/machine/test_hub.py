"""What the hub's cache on this machine holds: a model, a part of one, or nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest

from gemma4vec.errors import InputError
from gemma4vec.machine import hub
from gemma4vec.machine.hub import fetch, fetch_description, missing_file

SMALL = ("config.json", "tokenizer.json")
SHARDS = tuple(f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
INDEX = "model.safetensors.index.json"
MODULES = [
    {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    {"idx": 3, "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"},
]
SENTENCE = (*SMALL, "model.safetensors", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors")


def fill(folder: Path, *names: str) -> Path:
    """A folder with these files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    if (folder / INDEX).is_file():
        (folder / INDEX).write_text(json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}}))
    return folder


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ((*SMALL, "model.safetensors"), None),
        ((*SMALL, "pytorch_model.bin"), None),
        ((*SMALL, INDEX, *SHARDS), None),
        (("config.json", "vocab.txt", "model.safetensors"), None),
        ((), "config.json"),
        (SMALL, "model.safetensors"),
        (("config.json", "model.safetensors"), "tokenizer.json"),
        (("tokenizer.json", "model.safetensors"), "config.json"),
        ((*SMALL, INDEX, SHARDS[0]), SHARDS[1]),
        ((*SMALL, INDEX), SHARDS[0]),
        ((*SMALL, *SHARDS), INDEX),
    ],
)
def test_the_file_that_a_folder_lacks(tmp_path: Path, names: tuple[str, ...], missing: str | None) -> None:
    assert missing_file(fill(tmp_path, *names)) == missing
    small = missing if missing in (*SMALL, None) else None
    assert missing_file(tmp_path, weights=False) == small


@pytest.mark.parametrize("lost", SENTENCE)
def test_a_sentence_transformers_folder_needs_the_files_of_its_modules(tmp_path: Path, lost: str) -> None:
    fill(tmp_path, *SENTENCE)
    (tmp_path / "modules.json").write_text(json.dumps(MODULES))
    assert missing_file(tmp_path) is None
    (tmp_path / lost).unlink()
    assert missing_file(tmp_path) == lost


def test_damaged_lists_are_left_to_whoever_opens_the_model(tmp_path: Path) -> None:
    fill(tmp_path, *SMALL, "model.safetensors")
    (tmp_path / "modules.json").write_text("{")
    assert missing_file(tmp_path) is None
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / INDEX).write_text("[1")
    assert missing_file(tmp_path) is None


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts files of `owner/model` into the hub's cache, as its own library would."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub" / "models--owner--model"

    def put(*names: str) -> Path:
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "refs" / "main").write_text("c0ffee")
        return fill(place / "snapshots" / "c0ffee", *names)

    return put


def test_a_whole_model_is_used_without_asking_the_hub(
    cached: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cached(*SMALL, INDEX, *SHARDS)
    monkeypatch.setattr(hub, "ping_hub", lambda seconds: pytest.fail("asked"))
    assert fetch("owner/model") == (folder, "c0ffee")
    assert fetch_description("owner/model") == (folder, True, 4)  # two shards of two bytes


def test_what_is_missing_of_a_model_is_downloaded(cached: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached(*SMALL, INDEX, SHARDS[0])
    original = hub._snapshot

    def download(repository: str, revision: str | None, *, only_local: bool) -> Path | Exception:
        if not only_local:
            fill(folder, SHARDS[1])
        return original(repository, revision, only_local=True)

    monkeypatch.setattr(hub, "_snapshot", download)
    monkeypatch.setattr(hub, "ping_hub", lambda seconds: SimpleNamespace(reachable=True))
    assert fetch("owner/model") == (folder, "c0ffee") and (folder / SHARDS[1]).is_file()


def test_without_the_hub_the_missing_file_is_named(cached: Callable[..., Path]) -> None:
    cached(*SMALL, INDEX, SHARDS[0])
    expected = rf"owner/model is cached in part \({SHARDS[1]} is missing\) on this machine and the hub is out of reach"
    with pytest.raises(InputError, match=expected):
        fetch("owner/model")
    assert fetch_description("owner/model")[1:] == (False, None)  # the small files suffice for a dry run
    with pytest.raises(InputError, match="owner/other is not cached on this machine"):
        fetch("owner/other")
