"""A saved folder opens in sentence-transformers alone, where gemma4vec cannot be imported, with the same vectors."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_model import TEXTS
from tiny_saved import KINDS, save_tiny
from transformers import AutoModel

from gemma4vec.errors import WorkError
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.save import write_model as saving
from gemma4vec.text.prompts import Document

QUERIES = ["sort the tree", "read a file", "", "x", "list", "- list", "close " * 100, "дом 東京"]
DOCUMENTS = [*TEXTS[::80], "", " \n ", "def read(path):\n    return open(path)\n" * 30]
TITLED = [Document("def read(path): return open(path)", "io"), Document("the edge of a graph", "graph theory")]

# Runs where gemma4vec cannot be had: not on the path, and refused by name.
STRANGER = """
import json, sys
sys.modules["gemma4vec"] = None
import numpy as np
from sentence_transformers import SentenceTransformer
asked = json.load(open(sys.argv[1]))
for kind, folder in asked["folders"].items():
    model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": "float32"})
    one_by_one = [model.encode(text, prompt=prompt) for prompt, text in asked["titled"][kind]]
    np.savez(
        f"{folder}/../vectors.npz",
        queries=model.encode_query(asked["queries"], batch_size=3),
        documents=model.encode_document(asked["documents"]),
        titled=np.stack(one_by_one),
    )
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders of every kind, each with the vectors that a stranger's process gives."""
    root = tmp_path_factory.mktemp("saved")
    folders = {kind: save_tiny(root / kind, kind) for kind in KINDS}
    titled = {}
    for kind, folder in folders.items():
        prompts = Embedder.load(folder, dtype="fp32").prompts  # type: ignore[union-attr]
        titled[kind] = [list(prompts.for_document(document)) for document in TITLED]
    asked = {
        "folders": {kind: str(folder) for kind, folder in folders.items()},
        "queries": QUERIES,
        "documents": DOCUMENTS,
        "titled": titled,
    }
    (root / "asked.json").write_text(json.dumps(asked))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = forked.run(
        [sys.executable, "-c", STRANGER, str(root / "asked.json")],
        cwd=root,
        env=environment,
        plain=True,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folders


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_gets_the_same_vectors(saved: dict[str, Path], kind: str) -> None:
    embedder = Embedder.load(saved[kind], dtype="fp32")
    theirs = np.load(saved[kind].parent / "vectors.npz")
    texts = {"queries": QUERIES, "documents": DOCUMENTS, "titled": TITLED}
    ours = {
        "queries": embedder.encode_query(QUERIES),
        "documents": embedder.encode_document(DOCUMENTS),
        "titled": embedder.encode_document(TITLED),
    }
    for name, vectors in ours.items():
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
        pooled = np.linalg.norm(theirs[name], axis=1) > 0
        if kind not in ("no-prompt-pooled", "weighted"):
            assert pooled.all()
        # Nothing but a prompt that is not pooled: zero there, the prompt's own vector here, as a zero matches nothing.
        assert [text for text, kept in zip(texts[name], pooled, strict=True) if not kept] in ([], [""])
        assert cosines(vectors[pooled], theirs[name][pooled]).min() >= 0.99999, name
    # The vectors say something: different texts are not one and the same direction.
    assert (ours["documents"] @ ours["documents"].T).min() < 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_only_standard_modules_and_both_ways_to_write_pooling(saved: dict[str, Path], kind: str) -> None:
    folder = saved[kind]
    modules = json.loads((folder / "modules.json").read_text())
    assert all(module["type"].startswith("sentence_transformers.") for module in modules)
    names = [module["type"].rsplit(".", 1)[-1] for module in modules]
    layers = len(KINDS[kind][1].get("head", {}).get("widths", ()))
    assert names == ["Transformer", "Pooling", *["Dense"] * layers, "Normalize"]
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    readout = KINDS[kind][1].get("readout", {"name": "mean"})
    name = readout if isinstance(readout, str) else readout["name"]
    mode, legacy = {
        "last_token": ("lasttoken", "lasttoken"),
        "first_token": ("cls", "cls_token"),
        "mean": ("mean", "mean_tokens"),
        "weighted_mean": ("weightedmean", "weightedmean_tokens"),
    }[name]
    assert pooling["pooling_mode"] == mode and pooling[f"pooling_mode_{legacy}"] is True
    assert sum(value is True for key, value in pooling.items() if key.startswith("pooling_mode_")) == 1
    assert pooling["word_embedding_dimension"] == (40 if kind == "embedding-gemma2" else 32)
    assert pooling["include_prompt"] is (kind not in ("no-prompt-pooled", "weighted"))
    settings = json.loads((folder / "gemma4vec.json").read_text())
    assert settings["name"] == f"tiny-{kind}" and len(settings["fingerprint"]) == 64
    assert "## Licence and terms" in (folder / "README.md").read_text()
    assert not list(folder.parent.rglob("*.part")) and not (folder / "transformer").exists()
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.rglob("*") if path.is_file())


def test_the_adapter_gives_the_merged_model(saved: dict[str, Path]) -> None:
    run = saved["both-mean"].parent
    assert not (saved["llama-both"].parent / "adapter").exists()  # trained whole
    merged = AutoModel.from_pretrained(run / "model", dtype=torch.float32).eval()
    base = AutoModel.from_pretrained(run / "base", dtype=torch.float32, config=merged.config)
    adapted = PeftModel.from_pretrained(base, run / "adapter").eval()
    ids = torch.tensor([[2, 9, 30, 4, 77, 100]])
    with torch.no_grad():
        ours, theirs = adapted(input_ids=ids).last_hidden_state, merged(input_ids=ids).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(run / "base") and config["r"] == 4
    assert all(
        weight.dtype == torch.float32 for weight in load_file(run / "adapter" / "adapter_model.safetensors").values()
    )


def test_the_fingerprint_changes_with_every_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def saved_again() -> tuple[str, dict[str, torch.Tensor]]:
        folder = save_tiny(tmp_path, "no-prompt-pooled")
        fingerprint = json.loads((folder / "gemma4vec.json").read_text())["fingerprint"]
        return fingerprint, load_file(folder / "model.safetensors")

    first, weights = saved_again()
    assert saved_again()[0] == first
    real = saving.build

    def with_another_head(*arguments: Any, **settings: Any) -> EmbeddingModel:
        built = real(*arguments, **settings)
        load = built.load_trained
        built.load_trained = lambda values: load(  # type: ignore[method-assign]
            {name: value + 1 if name == "head.0.weight" else value for name, value in values.items()}
        )
        return built

    monkeypatch.setattr(saving, "build", with_another_head)
    second, same_weights = saved_again()
    assert all(torch.equal(value, same_weights[name]) for name, value in weights.items())
    assert second != first


def test_a_full_disk_is_one_line_and_leaves_no_half_model(tmp_path: Path) -> None:
    import resource
    import signal

    old = save_tiny(tmp_path / "run", "causal-last")
    before = {path.name: path.stat().st_mtime_ns for path in old.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    real = saving._write

    def on_a_full_disk(*arguments: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            real(*arguments)  # type: ignore[arg-type]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "_write", on_a_full_disk)
        with pytest.raises(WorkError, match="could not write") as caught:
            save_tiny(tmp_path / "run", "causal-last")
    assert "\n" not in str(caught.value)
    assert {path.name: path.stat().st_mtime_ns for path in old.iterdir()} == before
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"base", "model", "adapter"}
