"""Stages whose batches have near rows: clusters are made once, kept with the run, and read again when it goes on."""

import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_model import write_tiny
from tiny_run import rows

from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.errors import InputError, Interrupted
from gemma4vec.ledger.run_folder import RunFolder, list_runs
from gemma4vec.recipe.load import dump_recipe, parse_recipe
from gemma4vec.recipe.schema import Clusters, Recipe
from gemma4vec.text.prompts import Document
from gemma4vec.training import loop
from gemma4vec.training.batches import row_clusters, row_vectors
from gemma4vec.training.batches.near_texts import find_neighbors
from gemma4vec.training.batches.row_clusters import cluster_counts
from gemma4vec.training.run import start_run, train_run
from gemma4vec.training.tasks.contrastive import ContrastTask

SOURCE = Path(__file__).resolve().parents[2] / "src"
ONCE = "clusters: {by: BASE, count: 4}"
SELF = "clusters: {by: self, refresh: 2, count: 2}"
SELF_ONCE = "clusters: {by: self, text: query}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base, and rows of two sources."""
    folder = tmp_path_factory.mktemp("clusters")
    write_tiny(folder / "base", "llama", layers=2)
    write_rows(folder / "rows.jsonl", rows())
    write_rows(folder / "others.jsonl", [Row(f"value {n} of key", [Document(f"key {n} value")]) for n in range(16)])
    return folder


def recipe(place: Path, clusters: str, *overrides: str) -> Recipe:
    text = f"""
name: near
model: {{base: {place / "base"}, dtype: fp32, max_tokens: 48, lora: {{rank: 2, dropout: 0.2}}}}
stages:
  - data: [{{name: rows, path: {place / "rows.jsonl"}}}, {{name: others, path: {place / "others.jsonl"}}}]
    task: {{temperature: 0.1}}
    batch: {{rows: 4, accumulate: 2, group_rows: 2, {clusters.replace("BASE", str(place / "base"))}}}
    layout: {{row_tokens: 32, tokens_per_forward: 128, compile: false}}
    optimizer: {{learning_rate: 0.05, warmup_steps: 2}}
    budget: {{steps: 6}}
    evaluation: {{checkpoint_seconds: 0}}
"""
    return parse_recipe(text, "near", list(overrides))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Queries of every batch that is trained on, in order."""
    found: list[list[str]] = []
    real = ContrastTask.loss

    def loss(self: Any, built: Any, batch: Any) -> Any:
        found.append(batch.texts.queries)
        return real(self, built, batch)

    monkeypatch.setattr(ContrastTask, "loss", loss)
    return found


def trained(run: RunFolder) -> dict[str, torch.Tensor]:
    (last,) = run.checkpoints.glob("0-contrast/step-*")
    return load_file(last / "trained.safetensors")


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die before the step after number `step`, once its clusters are made."""
    real = loop._train_step

    def train_step(stage: Any, optimizer: Any, batches: Any, progress: Any, budget: Any) -> None:
        if progress.step == step:
            raise RuntimeError("killed")
        real(stage, optimizer, batches, progress, budget)

    monkeypatch.setattr(loop, "_train_step", train_step)


@pytest.mark.parametrize("clusters", [ONCE, SELF, SELF_ONCE])
@pytest.mark.parametrize("step", [2, 3])
def test_a_run_that_goes_on_has_the_same_batches(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[list[str]], clusters: str, step: int
) -> None:
    wanted = recipe(place, clusters)
    straight = start_run(wanted, tmp_path / "straight")
    train_run(straight, wanted)
    whole = list(seen)
    assert len(whole) == 12

    seen.clear()
    broken = start_run(wanted, tmp_path / "broken")
    with monkeypatch.context() as patched:
        stop_before(step, patched)
        with pytest.raises(RuntimeError, match="killed"):
            train_run(broken, wanted)
    made = [event["sha256"] for event in broken.events("clusters")]
    train_run(broken, wanted)
    assert seen == whole
    assert [e["loss"] for e in broken.events("step")] == [e["loss"] for e in straight.events("step")]
    for name, value in trained(straight).items():
        assert torch.equal(trained(broken)[name], value), name
    events = straight.events("clusters")
    assert [e["batch"] for e in events] == ([0, 4, 8] if clusters == SELF else [0])
    assert [e["sha256"] for e in broken.events("clusters")] == [e["sha256"] for e in events]  # none was made twice
    assert made == [e["sha256"] for e in events][: len(made)]
    assert not list(straight.path.rglob("vectors.npy"))


def test_the_rows_are_those_of_a_run_without_clusters(place: Path, tmp_path: Path, seen: list[list[str]]) -> None:
    drawn = {}
    for clusters, groups, seed in ((ONCE, 2, 0), ("clusters: null", 1, 0), (ONCE, 2, 1)):
        wanted = recipe(place, clusters, f"seed={seed}", f"stages.0.batch.group_rows={groups}")
        seen.clear()
        train_run(start_run(wanted, tmp_path), wanted)
        drawn[clusters, seed] = list(seen)
    near, mixed, other = drawn.values()
    assert near != mixed and near != other
    # 40 rows are 10 batches an epoch, and the budget reaches 12.
    for begin, end in ((0, 10), (10, 12)):
        assert Counter(q for one in near[begin:end] for q in one) == Counter(q for one in mixed[begin:end] for q in one)
    assert max(Counter(q for one in near[:10] for q in one).values()) == 1


def test_the_event_says_what_was_clustered(place: Path, tmp_path: Path) -> None:
    wanted = recipe(place, ONCE)
    run = start_run(wanted, tmp_path)
    train_run(run, wanted)
    (event,) = run.events("clusters")
    assert (event["stage"], event["step"], event["batch"], event["stop"]) == (0, 0, 0, 12)
    assert event["rows"] == 40 and 2 <= event["clusters"] <= 4 and event["smallest"] >= 2
    assert event["checked"] == 48 and event["within"] > event["between"]
    part = run.manifest["made_from"]["stages.0.batch.clusters.by"]
    assert part["weights"] == run.manifest["made_from"]["model.base"]["weights"]
    assert run.manifest["inherited"]["unknown"] == []  # its order alone comes from that model
    with np.load(run.path / "clusters" / "0-contrast" / "batch-00000000.npz") as arrays:
        labels = dict(zip(arrays["rows"].tolist(), arrays["clusters"].tolist(), strict=True))
    first, second = {labels[n] for n in range(24)}, {labels[n] for n in range(24, 40)}
    assert not first & second  # a cluster has rows of one source


def test_a_run_whose_clusters_are_damaged_makes_them_again_or_stops(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[list[str]]
) -> None:
    wanted = recipe(place, ONCE)
    run = start_run(wanted, tmp_path)
    file = run.path / "clusters" / "0-contrast" / "batch-00000000.npz"
    for step in (0, 1):
        with monkeypatch.context() as patched:
            stop_before(step, patched)
            with pytest.raises(RuntimeError, match="killed"):
                train_run(run, wanted)
        file.write_bytes(file.read_bytes()[:-3] + b"abc")
        if step == 0:
            continue
        with pytest.raises(InputError, match=r"batch-00000000\.npz is damaged or missing \(its contents differ"):
            train_run(run, wanted)
    assert len(run.events("clusters")) == 2
    file.unlink()
    with pytest.raises(InputError, match=r"damaged or missing \(.*; put it back, or start a new run"):
        train_run(run, wanted)


def test_a_signal_stops_between_two_steps(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[list[str]]
) -> None:
    wanted = recipe(place, SELF)
    straight = start_run(wanted, tmp_path / "straight")
    train_run(straight, wanted)
    whole = list(seen)
    seen.clear()
    run = start_run(wanted, tmp_path / "stopped")
    real = row_clusters.write_row_vectors

    def write(model: Any, *rest: Any) -> Any:
        if sum(1 for _ in run.events("clusters")) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(model, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(row_clusters, "write_row_vectors", write)
        with pytest.raises(Interrupted, match="stopped by SIGTERM after step 2"):
            train_run(run, wanted)
    train_run(run, wanted)
    assert seen == whole


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.0.batch.group_rows=1"], r"clusters: group_rows .* from 2 to 4, and is 1; set group_rows: 2"),
        (["stages.0.batch.group_rows=8"], r"clusters: group_rows .* from 2 to 4, and is 8"),
        (["stages.0.batch.clusters.refresh=3"], r"refresh: the vectors of .*base do not change in training; leave"),
        (["stages.0.task={kind: masked_next_token}"], r"batch\.clusters: near rows .* masked_next_token has none"),
        (["stages.0.batch.clusters.count=1"], r"count"),
    ],
)
def test_a_recipe_is_refused_in_one_line(place: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe(place, ONCE, *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.0.batch.clusters.count=21"], r"^stages\.0\.batch\.clusters\.count: 21 clusters of 2 rows .* most 20"),
        (["stages.0.batch.clusters.by=no/such"], r"^stages\.0\.batch\.clusters\.by: .*no/such"),
        (["stages.0.batch.clusters.by=bundled:none"], r"^stages\.0\.batch\.clusters\.by: .*none"),
    ],
)
def test_inputs_are_refused_before_a_run_begins(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wanted = recipe(place, ONCE, *overrides)
    run = start_run(wanted, tmp_path)
    with pytest.raises(InputError, match=message) as refused:
        train_run(run, wanted)
    assert "\n" not in str(refused.value)


class Pretended:
    """An embedder of vectors that are given."""

    name, dimension = "pretended", 4

    def __init__(self, vectors: dict[str, list[float]]):
        self.vectors = vectors

    def encode_query(self, texts: list[str]) -> np.ndarray:
        return np.array([self.vectors[text] for text in texts], dtype=np.float32)

    def encode_document(self, texts: list[Document]) -> np.ndarray:
        return np.array([self.vectors[text.text] for text in texts], dtype=np.float32)


def test_a_rows_vector_is_the_mean_of_both_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_vectors, "BLOCK", 2)
    model: Any = Pretended({"q": [1, 0, 0, 0], "p": [0, 2, 0, 0], "r": [0, 0, 1, 0], "nan": [np.nan, 0, 0, 0]})
    data = [Row("q", [Document("p"), Document("r")]), Row("r", [Document("q")]), Row("p", [Document("p")])]
    half = 0.5**0.5
    expected = {
        "query": [[1, 0, 0, 0], [0, 1, 0, 0]],
        "positive": [[0, 1, 0, 0], [0, 1, 0, 0]],
        "both": [[half, half, 0, 0], [0, 1, 0, 0]],
    }
    for text, wanted in expected.items():
        found = row_vectors.write_row_vectors(model, data, np.array([0, 2]), text, tmp_path / "v.npy", "k")
        assert np.allclose(found, wanted, atol=1e-3), text
    broken = [*data, Row("nan", [Document("p")])]
    with pytest.raises(InputError, match=r"^k: pretended makes vectors that are not finite, first of 'nan'; use"):
        row_vectors.write_row_vectors(model, broken, np.arange(4), "both", tmp_path / "v.npy", "k")


def test_neighbors_that_are_no_negatives_are_counted(place: Path) -> None:
    batch = recipe(place, ONCE).stages[0].batch
    data = [Row(f"q{n // 2 if n < 4 else n}", [Document(f"p{n}")]) for n in range(8)]  # 0 and 1, 2 and 3 ask the same
    vectors = np.zeros((8, 8))
    for n, axis in enumerate([0, 0, 1, 1, 2, 2, 3, 4]):  # 4 and 5 are nearly one
        vectors[n, axis] = 1
    window = row_clusters.ClusterWindow(0, 2, np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.int32), 4)
    found = find_neighbors(data, window, vectors, np.arange(8), batch, seed=0)
    assert (found.checked, found.same_text, found.near) == (8, 0.5, 0.25)
    assert found.within == pytest.approx((2 + 1) / 12) and found.between is None
    advice = found.advice(recipe(place, ONCE).stages[0])
    assert ["no_duplicates" in advice[0], "false_negative_margin" in advice[1]] == [True, True]
    careful = recipe(
        place,
        ONCE,
        "stages.0.batch.no_duplicates=true",
        "stages.0.task.terms=[{kind: nce, false_negative_margin: 0.1}]",
    )
    assert found.advice(careful.stages[0]) == []


def test_sources_share_clusters_by_their_rows() -> None:
    assert cluster_counts(10, [600, 300, 100], 16) == [6, 3, 1]
    assert cluster_counts(3, [900, 10, 10], 16) == [3, 1, 1]
    assert cluster_counts("auto", [30_000], 16) == [234]
    assert cluster_counts("auto", [10_000_000], 16) == [2048]
    assert cluster_counts("auto", [20], 16) == [1]


def test_groups_that_no_row_has_are_told(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = recipe(place, "clusters: null")
    train_run(start_run(wanted, tmp_path), wanted)
    assert "stages.0.batch.group_rows: no row has a group, so that batches are mixed" in caplog.text
    near = recipe(place, "clusters: null", "stages.0.batch.clusters={}")  # as on the command line
    assert near.stages[0].batch.clusters == Clusters()


@pytest.mark.slow
def test_two_processes_have_the_clusters_and_losses_of_one(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe(place, SELF, "model.lora.dropout=0")))
    words = ["-m", "gemma4vec", "train", str(file), "--json", "--out"]
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for before, out in (([], "one"), (torchrun, "two")):
        forked.run([sys.executable, *before, *words, str(tmp_path / out)], env=environment, check=True)
    (one,), (two,) = list_runs(tmp_path / "one"), list_runs(tmp_path / "two")
    assert [e["rows"] for e in two.events("step")] == [e["rows"] for e in one.events("step")]
    assert [e["batch"] for e in two.events("clusters")] == [0, 4, 8]
    # Later windows are clustered by weights that differ in their last bits.
    assert two.events("clusters")[0]["sha256"] == one.events("clusters")[0]["sha256"]
    losses = [[e["loss"] for e in run.events("step")] for run in (one, two)]
    assert losses[1][:2] == pytest.approx(losses[0][:2], abs=1e-5)
