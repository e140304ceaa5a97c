"""A model whose readout sentence-transformers lacks opens there all the same, where gemma4vec is installed."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_model import TEXTS
from tiny_saved import MAX_TOKENS, OWN_KINDS, save_tiny

from gemma4vec.errors import InputError
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.text.prompts import Document

QUERIES = ["sort the tree", "read a file", "", "x", "close " * 100, "дом 東京"]
DOCUMENTS = [*TEXTS[::80], "", " \n ", "def read(path):\n    return open(path)\n" * 30]
TITLED = [Document("def read(path): return open(path)", "io"), Document("the edge of a graph", "graph theory")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("own")
    folders = {kind: save_tiny(root / kind, kind) for kind in OWN_KINDS}
    for kind in OWN_KINDS:  # what a model needs, it has in its own folder
        shutil.rmtree(root / kind / "context", ignore_errors=True)
        shutil.rmtree(root / kind / "base")
    return folders


def opened(folder: Path, **settings: Any) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", trust_remote_code=True, local_files_only=True, **settings)


def lowest_cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(((ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)).min())


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_sentence_transformers_gives_the_same_vectors(saved: dict[str, Path], kind: str) -> None:
    embedder = Embedder.load(saved[kind], dtype="fp32")
    assert isinstance(embedder, Embedder)
    theirs = opened(saved[kind])
    assert theirs.max_seq_length == MAX_TOKENS and theirs.get_embedding_dimension() == embedder.dimension
    one_by_one = [theirs.encode(text, prompt=prompt) for prompt, text in map(embedder.prompts.for_document, TITLED)]
    pairs = {
        "queries": (embedder.encode_query(QUERIES), theirs.encode_query(QUERIES, batch_size=3)),
        "documents": (embedder.encode_document(DOCUMENTS), theirs.encode_document(DOCUMENTS)),
        "titled": (embedder.encode_document(TITLED), np.stack(one_by_one)),
    }
    for name, (ours, others) in pairs.items():
        assert ours.shape == others.shape == (len(ours), embedder.dimension)
        np.testing.assert_allclose(np.linalg.norm(others, axis=1), 1.0, atol=1e-5)
        assert lowest_cosine(ours, others) >= 0.99999, name
    # The vectors say something: different texts are not one and the same direction.
    assert (pairs["documents"][0] @ pairs["documents"][0].T).min() < 0.95


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_what_stands_in_the_folder(saved: dict[str, Path], kind: str) -> None:
    folder = saved[kind]
    modules = [module["type"] for module in json.loads((folder / "modules.json").read_text())]
    layers = len(OWN_KINDS[kind][1].get("head", {}).get("widths", ()))
    assert modules[0] == "gemma4vec.model.sentence_transformers_module.Gemma4VecEncoder"
    assert [name.rsplit(".", 1)[-1] for name in modules[1:]] == ["Dense"] * layers + ["Normalize"]
    assert all(name.startswith("sentence_transformers.") for name in modules[1:])
    assert not list(folder.rglob("*.py")) and (folder / "context_encoder").exists() == kind.startswith("context")
    assert all(value.dtype == torch.float32 for value in load_file(folder / "readout.safetensors").values())
    card = (folder / "README.md").read_text()
    assert "gemma4vec must be installed" in card and "trust_remote_code=True)" in card


def test_a_process_of_its_own_opens_it_by_the_name_of_the_class(saved: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from sentence_transformers import SentenceTransformer\n"
        "assert 'gemma4vec' not in sys.modules\n"
        "model = SentenceTransformer(sys.argv[1], device='cpu', trust_remote_code=True)\n"
        "np.save(sys.argv[2], model.encode_query(['sort the tree']))"
    )
    source = str(Path(__file__).resolve().parents[3] / "src")
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(saved["echo"]), str(tmp_path / "v.npy")]
    done = forked.run(command, env=environment, plain=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = Embedder.load(saved["echo"], dtype="fp32").encode_query(["sort the tree"])
    assert lowest_cosine(ours, np.load(tmp_path / "v.npy")) >= 0.99999


def test_saving_it_again_from_there_keeps_everything(saved: dict[str, Path], tmp_path: Path) -> None:
    for kind in ("context", "latent"):
        opened(saved[kind]).save(str(tmp_path / kind))
        first, again = Embedder.load(saved[kind], dtype="fp32"), Embedder.load(tmp_path / kind, dtype="fp32")
        np.testing.assert_allclose(again.encode_query(QUERIES), first.encode_query(QUERIES), atol=1e-6)


def test_the_type_that_is_asked_for_and_shorter_limits(saved: dict[str, Path]) -> None:
    model = opened(saved["latent"], model_kwargs={"dtype": "bfloat16"})
    parameters = dict(model[0].encoder.named_parameters())
    assert {p.dtype for name, p in parameters.items() if name.startswith("backbone.")} == {torch.bfloat16}
    assert {p.dtype for name, p in parameters.items() if name.startswith("readout.")} == {torch.float32}
    model = opened(saved["echo"])
    model.max_seq_length = 12
    ours = Embedder.load(saved["echo"], dtype="fp32", max_tokens=12)
    assert lowest_cosine(ours.encode_query(QUERIES), model.encode_query(QUERIES)) >= 0.99999


@pytest.mark.parametrize("damage", ["missing", "shape", "name"])
def test_a_damaged_readout_is_one_line(saved: dict[str, Path], tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(saved["latent"], tmp_path / "copy")
    weights = load_file(folder / "readout.safetensors")
    if damage == "missing":
        (folder / "readout.safetensors").unlink()
    else:
        latents = weights.pop("latents_RD")
        weights |= {"latents_RD": latents[:-1].contiguous()} if damage == "shape" else {"other": latents}
        save_file(weights, folder / "readout.safetensors")
    with pytest.raises(InputError, match="is damaged") as caught:
        Embedder.load(folder, dtype="fp32")
    assert "\n" not in str(caught.value)


def test_a_model_saved_before_readouts_had_parameters_still_opens(tmp_path: Path) -> None:
    """Format 1: `projection` for one linear layer, and `pool_prompt` under every readout."""
    for kind, older in (
        ("no-prompt-pooled", {"readout": {"name": "mean", "pool_prompt": False}, "projection": 6}),
        ("causal-last", {"readout": {"name": "last_token", "pool_prompt": False}, "projection": None}),
    ):
        folder = save_tiny(tmp_path / kind, kind)
        expected = Embedder.load(folder, dtype="fp32").encode_query(QUERIES)
        settings = json.loads((folder / "gemma4vec.json").read_text())
        del settings["model"]["head"], settings["dtype"]
        settings |= {"format": 1, "model": settings["model"] | older}
        (folder / "gemma4vec.json").write_text(json.dumps(settings))
        assert np.array_equal(Embedder.load(folder, dtype="fp32").encode_query(QUERIES), expected)
