"""`g4v.load_recipe` and `g4v.train`: the same recipes, runs and records as by the commands."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4vec as g4v
from gemma4vec.cli.main import execute
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.recipe.load import dump_recipe
from gemma4vec.recipe.recorded.fingerprint import recipe_id


def test_a_recipe_comes_from_a_file_a_name_a_mapping_or_a_recipe(trained: Any, tmp_path: Path) -> None:
    made = g4v.load_recipe(trained.recipe)
    (tmp_path / "tiny.yaml").write_text(dump_recipe(made))
    assert g4v.load_recipe(tmp_path / "tiny.yaml") == g4v.load_recipe(made) == made
    assert isinstance(g4v.load_recipe("echo_delta_causal"), g4v.Recipe)
    assert trained.recipe["stages"][0]["budget"] == {"steps": 6}  # what a person gave is theirs


def test_overrides_are_values_or_words(trained: Any) -> None:
    values = {"stages.0.optimizer.learning_rate": 1e-5, "hypothesis": "a: b", "model.base": Path("x"), "seed": 3}
    words = ["stages.0.optimizer.learning_rate=0.00001", "hypothesis='a: b'", "model.base=x", "seed=3"]
    by_value, by_word = (g4v.load_recipe(trained.recipe, one) for one in (values, words))
    assert by_value == by_word
    assert by_value.stages[0].optimizer.learning_rate == 1e-5 and by_value.hypothesis == "a: b"
    parts = {"stages.0.budget": {"minutes": 0.5}, "model.readout": {"name": "mean", "pool_prompt": False}}
    assert g4v.load_recipe(trained.recipe, parts).stages[0].budget.minutes == 0.5


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"model.bas": "x"}, "did you mean 'base'"),
        ({"stages.7.batch.rows": 3}, "is not a valid index"),
        ({"seed": object()}, "override seed: YAML has no object"),
        ("seed", "write key.path=value"),
    ],
)
def test_a_bad_override_is_one_line(trained: Any, overrides: Any, said: str) -> None:
    with pytest.raises(g4v.InputError) as refused:
        g4v.load_recipe(trained.recipe, overrides)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_run_tells_what_happened(trained: Any) -> None:
    run = trained.run
    assert run.status == "finished" and run.folder.parent == trained.home and run.id == run.folder.name
    steps = run.events("step")
    np.testing.assert_allclose(run.losses, [step["loss"] for step in steps])
    assert run.losses.dtype == np.float64 and len(run.losses) == 6
    assert run.recipe == g4v.load_recipe(trained.recipe) and run.manifest["recipe_id"] == recipe_id(run.recipe)
    assert (run.model_folder / "modules.json").is_file() and {"step", "finished"} <= {e["event"] for e in run.events()}
    assert run.report().read_text().startswith("<!")
    assert f"Run {run.id}" in repr(run) and "finished" in run._repr_html_()


def test_it_is_the_commands_training(trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.yaml").write_text(dump_recipe(g4v.load_recipe(trained.recipe)))
    words = ["train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "out"), "--json"]
    assert execute(words) == 0
    printed = json.loads(capsys.readouterr().out)
    events = [json.loads(line) for line in (Path(printed["run"]) / "events.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    np.testing.assert_allclose(trained.run.losses, losses, rtol=1e-6)


def test_ctrl_c_leaves_a_run_that_goes_on(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from gemma4vec.ledger.run_folder import RunFolder

    write = RunFolder.event

    def interrupt(self: RunFolder, name: str, **fields: Any) -> None:
        write(self, name, **fields)
        if name == "step" and fields["step"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "event", interrupt)
    with caplog.at_level(logging.INFO, "gemma4vec"), pytest.raises(KeyboardInterrupt):
        g4v.train(trained.recipe, out=tmp_path / "out", progress=False)
    monkeypatch.setattr(RunFolder, "event", write)
    folder = Path(re.findall(r"run folder: (\S+)", caplog.text)[0])
    assert json.loads((folder / "manifest.json").read_text())["status"] == "interrupted"
    run = g4v.train(resume=folder, progress=False)
    assert run.folder == folder and run.status == "finished"
    with open_ledger(home()) as ledger:
        assert ledger.value("SELECT count(*) FROM runs WHERE run_id = ?", (run.id,)) >= 1
    np.testing.assert_allclose(run.losses, trained.run.losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda t: g4v.train(), "exactly one of"),
        (lambda t: g4v.train(t.recipe, resume=t.run), "exactly one of"),
        (lambda t: g4v.train(resume=t.run, seed=3), "own recipe"),
        (lambda t: g4v.train(resume=t.run), "is finished"),
        (lambda t: g4v.train(resume="nothing"), "no run 'nothing'"),
        (lambda t: g4v.train("no_such_recipe"), "no recipe 'no_such_recipe'"),
        (lambda t: g4v.train({**t.recipe, "modle": {}}), "did you mean 'model'"),
        (lambda t: g4v.train(t.recipe, {"stages.0.data.0.path": "none.jsonl"}), "none.jsonl"),
    ],
)
def test_bad_input_is_one_line(trained: Any, call: Any, said: str) -> None:
    with pytest.raises(g4v.InputError) as refused:
        call(trained)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_silent_where_it_is_asked_to_be(trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {"stages.0.budget.steps": 2}
    g4v.train(trained.recipe, few, out=tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")
    g4v.train(trained.recipe, few, out=tmp_path)
    captured = capsys.readouterr()
    assert captured.out == "" and "run folder:" in captured.err


@pytest.fixture
def old(tmp_path: Path) -> dict[str, Path]:
    """Runs of commit da599b7, by name."""
    import tarfile

    fixture = Path(__file__).resolve().parents[1] / "fixtures" / "da599b7"
    with tarfile.open(fixture / "work.tar.xz") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    for path in (tmp_path / "old").rglob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml"):
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace("/tmp/gemma4vec-da599b7", str(tmp_path / "old")), encoding="utf-8")
    runs = json.loads((fixture / "expected.json").read_text())["runs"]
    return {"work": tmp_path / "old", **{name: tmp_path / "old" / "home" / runs[name] for name in runs}}


def test_runs_of_an_older_version_open(old: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old["work"])
    shutil.rmtree(old["work"] / "home" / "evals", ignore_errors=True)
    expected = json.loads((Path(__file__).resolve().parents[1] / "fixtures/da599b7/expected.json").read_text())
    model = g4v.load(old["plain"], dtype="fp32")
    for role, encode in (("query", model.encode_query), ("document", model.encode_document)):
        np.testing.assert_allclose(encode(expected["texts"]), expected["vectors"]["plain"][role], atol=1e-5)
    found = g4v.evaluate(old["plain"], old["work"] / "suites" / "dev", dtype="fp32", progress=False)
    assert found.mean == pytest.approx(expected["scores"][old["plain"].name]["ndcg@10"], rel=1e-6)
    with pytest.raises(g4v.InputError, match="no finished model yet"):
        g4v.load(old["killed"])
    resumed = g4v.train(resume=old["killed"], progress=False)
    assert resumed.status == "finished" and resumed.recipe.name and len(resumed.losses) > 0
