"""What `gemma4vec compare A B` makes of its two arguments, and where results go."""

from pathlib import Path
from typing import Any

import pytest

from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.find_results import find_result_pair, free_folder
from gemma4vec.evaluation.results.result import Result, save_result
from gemma4vec.ledger.run_folder import RunFolder


def put(folder: Path, **settings: Any) -> Path:
    """A small result at `folder`."""
    scores = {"q1": {"ndcg@10": 0.5}, "q2": {"ndcg@10": 0.25}}
    save_result(Result(folder.parent.name, folder.name, {folder.name: scores}, settings), folder, [])
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(home: Path) -> RunFolder:
    """A run with results of three models on one suite."""
    made = RunFolder.create(home, "quick", "seed: 1\n")
    for model in ("bm25", "untrained", "trained"):
        put(made.evaluation(model, "code"))
    return made


def test_a_run_means_its_trained_model_and_a_name_beside_it_the_runs_own(home: Path, run: RunFolder) -> None:
    put(home / "evals" / "bm25" / "code")
    trained, bm25 = run.evaluation("trained", "code"), run.evaluation("bm25", "code")
    assert find_result_pair(str(run.path), "bm25", home) == (trained, bm25)
    assert find_result_pair(run.run_id, "untrained", home) == (trained, run.evaluation("untrained", "code"))
    assert find_result_pair("bm25", "latest", home) == (bm25, trained)


def test_a_name_below_home_where_the_run_has_none(home: Path, run: RunFolder) -> None:
    other = put(home / "evals" / "minilm-l6" / "code")
    assert find_result_pair(str(run.path), "minilm-l6", home)[1] == other
    assert find_result_pair(str(run.path), "MiniLM L6", home)[1] == other


def test_folders_of_results_and_of_models(home: Path, run: RunFolder) -> None:
    a, b = run.path / "evals" / "bm25" / "code", run.path / "evals" / "untrained"
    assert find_result_pair(str(a), str(b), home) == (a, b / "code")


def test_the_suite_that_both_have(home: Path) -> None:
    for suite in ("one", "both"):
        put(home / "evals" / "a" / suite)
    for suite in ("both", "two"):
        put(home / "evals" / "b" / suite)
    assert [found.name for found in find_result_pair("a", "b", home)] == ["both", "both"]
    assert [found.name for found in find_result_pair("a", "b", home, suite="both")] == ["both", "both"]
    with pytest.raises(InputError, match="b has no result on 'one'; it has both, two"):
        find_result_pair("a", "b", home, suite="one")
    put(home / "evals" / "b" / "one")
    with pytest.raises(InputError, match="several suites in common; choose one with --suite: both, one"):
        find_result_pair("a", "b", home)


def test_nothing_in_common(home: Path) -> None:
    for suite in ("one", "two"):
        put(home / "evals" / "a" / suite)
    put(home / "evals" / "b" / "three")
    with pytest.raises(InputError, match=r"no suite in common \(one, two against three\)"):
        find_result_pair("a", "b", home)


def test_what_is_not_there_says_what_to_do(home: Path, run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no result 'nosuch'.*gemma4vec eval nosuch --suite DIR"):
        find_result_pair(str(run.path), "nosuch", home)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no evaluation results in .*empty"):
        find_result_pair(str(tmp_path / "empty"), str(run.path), home)
    fresh = RunFolder.create(home, "fresh", "")
    put(fresh.evaluation("untrained", "code"))
    with pytest.raises(InputError, match=r"no evaluation of its trained model; it has .*untrained"):
        find_result_pair(str(fresh.path), "bm25", home)


class Model:
    """What `free_folder` looks at."""

    name = "m"

    def __init__(self, fingerprint: str, dtype: str) -> None:
        self.fingerprint, self.dtype = fingerprint, dtype

    def describe(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "limits": (1, 2)}

    def rank(self, *_: Any) -> Any:
        raise AssertionError("nothing is ranked here")


def test_results_of_other_settings_or_weights_are_kept_apart(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    first = Model("1", "fp32")
    assert free_folder(folder, "code", first) == folder / "code"
    put(folder / "code", model={"dtype": "fp32", "limits": [1, 2]}, model_fingerprint="1")
    assert free_folder(folder, "code", first) == folder / "code"
    elsewhere = free_folder(folder, "code", Model("1", "bf16"))
    assert elsewhere.parent.name.startswith("m-") and elsewhere.name == "code"
    assert free_folder(folder, "code", Model("1", "bf16")) == elsewhere
    assert free_folder(folder, "code", Model("2", "fp32")) not in (folder / "code", elsewhere)
    assert free_folder(folder, "code", Model("2", "fp32"), replaces_other_weights=True) == folder / "code"
    assert free_folder(folder, "code", Model("2", "bf16"), replaces_other_weights=True) != folder / "code"


def test_a_damaged_result_is_left_for_its_owner(tmp_path: Path) -> None:
    put(tmp_path / "m" / "code")
    (tmp_path / "m" / "code" / "metrics.json").write_text("{")
    assert free_folder(tmp_path / "m", "code", Model("1", "fp32")) != tmp_path / "m" / "code"
