"""Mergekit through sentence-transformers: the oracle of our mean where it is installed; a line where it is not."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny_family import make_base, make_run

from gemma4vec.errors import InputError
from gemma4vec.pipeline.soup.make_soup import make_soup

needs_mergekit = pytest.mark.skipif(find_spec("mergekit") is None, reason="mergekit is not installed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("merge")
    base = make_base(folder)
    return [make_run(folder, base, seed).path for seed in (1, 2)]


@pytest.mark.skipif(find_spec("mergekit") is not None, reason="mergekit is installed")
def test_without_mergekit_its_methods_are_one_line(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'--method slerp: uniform.* need mergekit: pip install "gemma4vec\[merge\]"'):
        make_soup(runs, tmp_path / "soup", method="slerp")


@needs_mergekit
def test_our_mean_is_the_librarys(runs: list[Path], tmp_path: Path) -> None:
    ours = SentenceTransformer(str(make_soup(runs, tmp_path / "soup").folder), device="cpu").state_dict()
    theirs = SentenceTransformer.merge([str(run / "model") for run in runs], method="linear").state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], rtol=2**-23, atol=1e-9), name


@needs_mergekit
@pytest.mark.parametrize("method", ["slerp", "karcher", "ties", "task_arithmetic"])
def test_methods_of_the_library_are_models_of_ours(runs: list[Path], tmp_path: Path, method: str) -> None:
    record = make_soup(runs, tmp_path / "soup", method=method)
    assert record.norm is not None and record.norm > 0 and record.weights == ()
    assert SentenceTransformer(str(record.folder), device="cpu").encode(["sort"]).shape == (1, 32)


@needs_mergekit
def test_what_the_library_refuses_is_one_line(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"use uniform, greedy, weights or one of mergekit's: .*slerp"):
        make_soup(runs, tmp_path / "soup", method="slurp")
    with pytest.raises(InputError, match=r"--method slerp: .*x"):
        make_soup(runs, tmp_path / "soup", method="slerp", parameters={"x": 1.0})
