"""The length of a model's vectors by its small files is the length of what it gives, opened; no weight is read."""

import json
import shutil
from pathlib import Path

import pytest
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from tiny_model import write_tiny
from tiny_saved import save_tiny

from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.save.output_dimension import folder_dimension


def without_weights(folder: Path, out: Path) -> Path:
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
    return out


@pytest.mark.parametrize("kind", ["no-prompt-pooled", "echo", "echo-concat", "both-mean"])
def test_a_saved_models_is_what_it_gives(tmp_path: Path, kind: str) -> None:
    run = save_tiny(tmp_path, kind).parent
    dimension = Embedder.load(run / "model", dtype="fp32").dimension
    assert folder_dimension(without_weights(run / "model", tmp_path / "bare")) == dimension
    bare_run = tmp_path / "run"
    bare_run.mkdir()
    (bare_run / "manifest.json").write_text("{}")
    without_weights(run / "model", bare_run / "model")
    assert folder_dimension(bare_run) == dimension


def test_a_bases_is_the_width_of_its_states(tmp_path: Path) -> None:
    for architecture in ("gemma3_whole", "llama"):  # the first has its tower inside
        base = write_tiny(tmp_path / architecture, architecture)
        assert folder_dimension(base) == Embedder.load(base, dtype="fp32").dimension


@pytest.mark.parametrize("modes", ["mean", ("cls", "mean")])
@pytest.mark.parametrize("dense", [False, True])
def test_a_sentence_transformers_folder_has_its_last_modules(
    tmp_path: Path, modes: str | tuple[str, ...], dense: bool
) -> None:
    modules = [Pooling(12, pooling_mode=modes)]  # type: ignore[arg-type]
    wide = modules[0].get_embedding_dimension()
    modules += [Dense(wide, 5)] if dense else []
    modules += [Normalize()]
    listed = []
    for number, module in enumerate(modules):
        folder = tmp_path / str(number)
        folder.mkdir()
        module.save(str(folder))
        kind = f"{type(module).__module__}.{type(module).__name__}"
        listed.append({"idx": number, "name": str(number), "path": str(number), "type": kind})
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    assert folder_dimension(tmp_path) == (5 if dense else wide)
    listed.append({"idx": 9, "name": "9", "path": "", "type": "somebodys.Compress"})
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    assert folder_dimension(tmp_path) is None  # nobody knows without opening it


def test_the_bundled_encoders_legacy_config_is_read(tmp_path: Path) -> None:
    path = resolve_base("bundled:all-minilm-l6-v2").path
    assert folder_dimension(without_weights(path, tmp_path / "bare")) == 384


def test_what_is_damaged_is_for_opening_to_say(tmp_path: Path) -> None:
    assert folder_dimension(tmp_path) is None
    (tmp_path / "modules.json").write_text("[{]")
    assert folder_dimension(tmp_path) is None
