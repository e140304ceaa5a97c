"""`benchmarks/gpu/__main__.py --smoke`: every part runs through on a CPU and writes what it found.

A part takes up to half a minute; `make slow` runs them all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from tiny_model import write_tiny

from gemma4vec.machine.compiler import missing_for_compile

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows and one suite, as a data folder has them."""
    folder = tmp_path_factory.mktemp("data")
    rows = [{"query": f"read file {i}", "pos": [f"def read_{i}(path): open the file {i}"]} for i in range(24)]
    suite = folder / "retrieval/files"
    (folder / "train").mkdir()
    (suite / "qrels").mkdir(parents=True)
    (folder / "train/code.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    corpus = [{"_id": f"d{i}", "title": "", "text": row["pos"][0]} for i, row in enumerate(rows[:6])]
    queries = [{"_id": f"q{i}", "text": row["query"]} for i, row in enumerate(rows[:6])]
    (suite / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)), encoding="utf-8")
    (suite / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), encoding="utf-8")
    judged = "".join(f"q{i}\td{i}\t1\n" for i in range(6))
    (suite / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged, encoding="utf-8")
    return folder


def run(part: str, base: Path, results: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["--smoke", "--one", part, "--base", str(base), "--results", str(results), *more]
    command = [sys.executable, "-m", "benchmarks.gpu", *words]
    return forked.run(command, capture_output=True, text=True, timeout=900, env=ENVIRONMENT)


def result_of(part: str, base: Path, results: Path, *more: str) -> dict[str, object]:
    done = run(part, base, results, *more)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = results.glob(f"gpu-{part}-smoke-*.json")
    found: dict[str, object] = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_all_paths_are_compared(base: Path, tmp_path: Path) -> None:
    found = result_of("correctness", base, tmp_path, "--eager")["by_model"]
    assert isinstance(found, dict)
    causal, both = found["tiny, causal"], found["tiny, bidirectional"]
    assert {"packed", "shared beginnings", "checkpointed", "GradCache"} < set(causal)
    assert "shared beginnings" not in both and set(found["gemma-4, causal"]) == set(causal)
    assert all(one["ok"] for errors in found.values() for one in errors.values())


@pytest.mark.slow
@pytest.mark.skipif(missing_for_compile("cpu") is not None, reason="torch.compile needs a compiler")
def test_a_small_gemma_4_is_compiled(base: Path, data: Path, tmp_path: Path) -> None:
    compared = result_of("correctness", base, tmp_path)["by_model"]["gemma-4, causal"]  # type: ignore[index]
    assert compared["shared beginnings, compiled"]["ok"], compared
    trained = result_of("training-e2b", base, tmp_path, "--data", str(data))
    assert trained["fastest"]["compiled"] and "peer_failed" not in trained, trained  # type: ignore[index]


@pytest.mark.slow
def test_training_is_compared_with_the_peer(base: Path, data: Path, tmp_path: Path) -> None:
    found = result_of("training-e2b", base, tmp_path, "--data", str(data), "--eager")
    assert "peer_failed" not in found, found["peer_failed"]
    assert found["ratio"]["median"] > 0  # type: ignore[index]
    assert found["finished"] and not found["peer_compiled"]["tried"]  # type: ignore[index]
    best = found["fastest"]
    assert 0 < best["model_flop_utilisation"] < 1 and sum(best["time"].values()) == pytest.approx(1)  # type: ignore[index]


@pytest.mark.slow
def test_encoding_gives_the_peers_vectors(base: Path, tmp_path: Path) -> None:
    found = result_of("encoding-e2b", base, tmp_path)
    assert found["cosine"]["least"] > 0.99  # type: ignore[index]


@pytest.mark.slow
def test_quality_trains_and_evaluates(base: Path, data: Path, tmp_path: Path) -> None:
    found = result_of("quality", base, tmp_path, "--data", str(data), "--suites", "files")
    assert set(found["ndcg@10"]) == {"files"} and found["training"]["steps"] == 2  # type: ignore[call-overload, index]
    assert found["sources"]["code"] == {"rows": 24, "kept": 18}  # type: ignore[index]
    (look,) = found["looks"]  # type: ignore[misc]
    assert (look["suite"], look["role"]) == ("files", "dev")
    journal = (tmp_path / "gpu-quality/ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert [record["kind"] for record in map(json.loads, journal)].count("look") == 1


def test_no_suite_is_opened_unasked(base: Path, data: Path, tmp_path: Path) -> None:
    done = run("quality", base, tmp_path, "--data", str(data))
    assert done.returncode == 2 and "--suites" in done.stderr and not (tmp_path / "gpu-quality").exists()


@pytest.mark.slow
def test_a_failing_part_writes_why_and_stops_no_other(base: Path, tmp_path: Path) -> None:
    words = ["--smoke", "--base", str(tmp_path / "missing"), "--results", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.gpu", *words, "--parts", "encoding-270m", "training-270m"]
    done = forked.run(command, capture_output=True, text=True, timeout=600, env=ENVIRONMENT)
    assert done.returncode == 1 and done.stdout.count("failed with exit code 2") == 2
    assert len(list(tmp_path.glob("gpu-*-smoke-*.json"))) == 2
    assert "no model at" in json.loads(next(tmp_path.glob("gpu-enc*")).read_text(encoding="utf-8"))["error"]
