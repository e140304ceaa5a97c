"""Soups of tiny models: weights against a plain mean of loaded models, the folder, the place in the ledger."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from small_suite import write_small_suite
from tiny_family import make_base, make_run
from torch import Tensor

from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.guards import find_owner
from gemma4vec.files import home
from gemma4vec.ledger.comparison_count import count_looks
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.lineage import runs_of_weights
from gemma4vec.ledger.recording import freeze
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.bases.weights import hash_weights
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.save.model_lineage import lineage_of_folder
from gemma4vec.model.save.read_model import read_settings, saved_fingerprint
from gemma4vec.pipeline.soup.make_soup import make_soup

TEXTS = ["return the list of nodes", "sort", "a tree of edges and a graph"]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start with a head, three runs from it (the third in bf16)."""
    folder = tmp_path_factory.mktemp("family")
    base = make_base(folder)
    start = make_run(folder / "0", base, 1, head={"widths": [6]})
    for seed in (1, 2, 3):
        dtype = torch.bfloat16 if seed == 3 else torch.float32
        make_run(folder / str(seed), base, seed + 1, start=start.model, head={"widths": [6]}, dtype=dtype)
    return folder


def run(family: Path, number: int) -> Path:
    return next(path for path in (family / str(number)).iterdir() if not path.name.startswith("."))


def loaded(folder: Path, own: bool = False) -> dict[str, Tensor]:
    """The weights as sentence-transformers loads them."""
    settings = {"dtype": torch.float32}
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=own, model_kwargs=settings)
    return model.state_dict()


def check_mean(folder: Path, parts: dict[Path, float], own: bool = False) -> None:
    """The oracle: the weighted mean of loaded state dicts."""
    states = [loaded(part, own) for part in parts]
    for name, value in loaded(folder, own).items():
        mean = sum(weight * state[name].double() for weight, state in zip(parts.values(), states, strict=True))
        same = all(torch.equal(states[0][name], state[name]) for state in states)
        if same:
            assert torch.equal(value, states[0][name]), name
        else:  # rounded once: at most half a unit in the last place of fp32 away
            assert torch.allclose(value.double(), torch.as_tensor(mean), rtol=1.0001 * 2**-24, atol=1e-40), name
        assert not same or name.endswith("embed_scale"), name


def test_the_plain_mean_is_an_ordinary_model(family: Path, tmp_path: Path, log_lines: list[str]) -> None:
    runs = [run(family, number) for number in (1, 2, 3)]
    record = make_soup([str(path) for path in runs], tmp_path / "soup")
    folder = record.folder
    check_mean(folder, {path / "model": 1 / 3 for path in runs})
    assert any(runs[2].name in line and "16 bits" in line for line in log_lines)
    settings = read_settings(folder)
    assert saved_fingerprint(folder, settings) == settings["fingerprint"] and settings["dtype"] == "float32"
    assert [one["run_id"] for one in settings["soup"]["ingredients"]] == [path.name for path in runs]
    assert str(tmp_path) not in json.dumps(settings["soup"])  # no path of this machine
    card = (folder / "README.md").read_text()
    assert "The plain mean of the weights of 3 text-embedding models" in card and runs[1].name in card
    assert "apache-2.0" in card
    vectors = Embedder.load(folder, dtype="fp32").encode_document(TEXTS)
    theirs = SentenceTransformer(str(folder), device="cpu").encode_document(TEXTS)
    assert np.allclose(vectors, theirs, atol=1e-5) and vectors.shape == (3, 6)
    names = {path.relative_to(runs[0] / "model") for path in (runs[0] / "model").rglob("*")}
    assert {path.relative_to(folder) for path in folder.rglob("*")} == names


def test_given_weights_and_a_share_of_the_start(family: Path, tmp_path: Path) -> None:
    one, two, start = run(family, 1), run(family, 2), run(family, 0)
    record = make_soup([one, two], tmp_path / "weighted", method="weights", weights=[0.75, 0.25])
    check_mean(record.folder, {one / "model": 0.75, two / "model": 0.25})
    wise = make_soup([one], tmp_path / "wise", start_weight=0.5)
    check_mean(wise.folder, {one / "model": 0.5, start / "model": 0.5})
    assert wise.shrinkage == pytest.approx(0.5) and wise.as_json()["start"]["weight"] == 0.5
    named = make_soup([one, start], tmp_path / "named")  # the start is an ingredient like others
    assert hash_weights(named.folder) == hash_weights(wise.folder)


def test_readouts_of_our_own_are_averaged_too(family: Path, tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "runs", family / "base", seed, readout={"name": "attention", "heads": 2}) for seed in (5, 6)
    ]
    record = make_soup([one.path for one in runs], tmp_path / "soup", method="weights", weights=[0.25, 0.75])
    check_mean(record.folder, {runs[0].model: 0.25, runs[1].model: 0.75}, own=True)
    assert (record.folder / "readout.safetensors").is_file()
    assert Embedder.load(record.folder, dtype="fp32").encode_document(TEXTS).shape[0] == 3
    with safe_open(record.folder / "readout.safetensors", framework="pt") as file:
        assert record.deltas is not None and record.deltas.left_out == len(list(file.keys()))  # the base has none


def test_the_geometry_and_the_control(family: Path, tmp_path: Path) -> None:
    runs = [run(family, number) for number in (1, 2)]
    record = make_soup(runs, tmp_path / "soup", control=True)
    assert record.deltas is not None and record.norm is not None and record.shrinkage is not None
    origin = loaded(run(family, 0) / "model")

    def change(folder: Path) -> Tensor:
        state = loaded(folder)
        return torch.cat([(state[name].double() - value.double()).flatten() for name, value in origin.items()])

    changes = [change(path / "model") for path in runs]
    assert record.deltas.norms == pytest.approx([float(one.norm()) for one in changes], rel=1e-6)
    assert record.deltas.cosines[0][1] == pytest.approx(float(torch.cosine_similarity(*changes, dim=0)), rel=1e-5)
    assert record.norm == pytest.approx(float(change(record.folder).norm()), rel=1e-6)
    assert record.shrinkage == pytest.approx(record.norm / np.mean(record.deltas.norms))
    assert record.control is not None and record.control.folder == tmp_path / "soup-control"
    shrunken = change(record.control.folder)
    assert torch.allclose(shrunken, record.shrinkage * changes[0], atol=1e-6)
    assert record.control.norm == pytest.approx(float(shrunken.norm()), rel=1e-6)
    assert "A control for a soup" in (record.control.folder / "README.md").read_text()


def test_the_ledger_knows_a_soup_by_its_weights(family: Path, tmp_path: Path) -> None:
    runs = [run(family, number) for number in (1, 2)]
    record = make_soup(runs, tmp_path / "soup")
    copy = Path(shutil.copytree(record.folder, tmp_path / "elsewhere"))
    assert runs_of_weights(hash_weights(copy)) == [record.run_id]
    lineage = lineage_of_folder(copy, hash_weights(copy), "copy")
    start = run(family, 0)
    assert set(lineage.data) == {start.name, *(path.name for path in runs)} and not lineage.unknown
    soup = RunFolder(home() / record.run_id)
    assert soup.manifest["status"] == "finished" and soup.manifest["parents"] == [path.name for path in runs]
    assert soup.model.resolve() == record.folder.resolve()
    again = make_soup([runs[1], runs[0]], tmp_path / "again")
    assert RunFolder(home() / again.run_id).manifest["recipe_id"] == soup.manifest["recipe_id"]  # the same method
    with pytest.raises(InputError, match="there is nothing to train"):
        _ = soup.recipe_text


def test_a_final_suite_opens_for_a_frozen_soup_alone(family: Path, tmp_path: Path) -> None:
    record = make_soup([run(family, number) for number in (1, 2)], tmp_path / "soup")
    suite = open_suite(str(write_small_suite(tmp_path, "last", "final")))
    model = Embedder.load(record.folder)
    owner = find_owner(model)
    assert owner.ids["run_id"] == record.run_id and owner.ids["recipe_id"]
    with pytest.raises(InputError, match="for frozen recipes only"):
        evaluate(model, suite)
    freeze(home(), str(owner.ids["recipe_id"]), record.run_id, "enough")
    result = evaluate(model, suite)
    assert set(result.settings["contamination"]["runs"]) == {run(family, number).name for number in (0, 1, 2)}


def test_greedy_looks_are_recorded_and_a_final_suite_is_refused(family: Path, tmp_path: Path) -> None:
    runs = [run(family, number) for number in (1, 2, 3)]
    final = write_small_suite(tmp_path, "last", "final")
    with pytest.raises(InputError, match="--dev: last is a final suite"):
        make_soup(runs, tmp_path / "soup", method="greedy", dev=[final])
    with pytest.raises(InputError, match="name a dev suite"):
        make_soup(runs, tmp_path / "soup", method="greedy")
    dev = write_small_suite(tmp_path, "words", "dev")
    copies = [Path(shutil.copytree(path, tmp_path / "runs2" / path.name)) for path in runs]
    record = make_soup(copies, tmp_path / "soup", method="greedy", dev=[dev])
    kept = [trial.kept for trial in record.trials]
    assert len(kept) == 3 and kept[0] and record.score is not None
    members = next(trial.members for trial in reversed(record.trials) if trial.kept)
    share = 1 / len(members)
    assert record.weights == tuple(share if number in members else 0.0 for number in range(3))
    best = max(one.mean for one in record.ingredient_scores)
    assert record.trials[0].score == best <= record.score.mean
    with open_ledger(home()) as ledger:
        rows = ledger.rows("SELECT model, run_id FROM looks WHERE metric = 'ndcg@10' ORDER BY seq")
        assert [row["suite"] for row in count_looks(ledger)] == ["words"]
    ours = [row for row in rows if row["run_id"] == record.run_id]
    assert [row["run_id"] for row in rows[:3]] == [path.name for path in runs]
    assert len(ours) == 3 and not (home() / record.run_id / "trial").exists()  # two trials and the result
    again = make_soup(copies, tmp_path / "again", dev=[dev])  # known results of the ingredients are no new looks
    with open_ledger(home()) as ledger:
        assert len(ledger.rows("SELECT 1 FROM looks WHERE metric = 'ndcg@10'")) == len(rows) + 1
    assert [one.by_suite for one in again.ingredient_scores] == [one.by_suite for one in record.ingredient_scores]


def test_what_needs_the_start_says_so_without_it(family: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(family / "base", tmp_path / "base"))
    runs = [make_run(tmp_path / "runs", base, seed).path for seed in (7, 8)]
    shutil.rmtree(base)
    with pytest.raises(InputError, match="need the common start, and the weights of base are not on this machine"):
        make_soup(runs, tmp_path / "soup", control=True)
    record = make_soup(runs, None)
    assert record.deltas is None and record.folder == home() / record.run_id / "model"
    assert Embedder.load(home() / record.run_id).name == record.run_id
    from_soup = [make_run(tmp_path / "more", family / "base", seed, start=record.folder).path for seed in (9, 10)]
    second = make_soup(from_soup, tmp_path / "second")  # a soup is a start like others
    assert second.start == "start" and second.deltas is not None
    parts = read_settings(second.folder)["made_from"]
    assert parts["model.start"]["weights"] == hash_weights(record.folder) and "path" not in parts["model.start"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "weights"}, "belong together"),
        ({"weights": [0.5, 0.5]}, "belong together"),
        ({"method": "weights", "weights": [0.5, 0.6]}, "must sum to 1"),
        ({"start_weight": 1.0}, "from 0 to below 1"),
        ({"parameters": {"t": 0.5}}, "--parameter is for methods of mergekit's"),
        ({"method": "slerp", "start_weight": 0.5}, "--start-weight mixes with"),
    ],
)
def test_settings_that_do_not_fit(family: Path, tmp_path: Path, settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_soup([run(family, 1), run(family, 2)], tmp_path / "soup", **settings)  # type: ignore[arg-type]
    assert not home().exists()
