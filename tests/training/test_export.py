"""Which checkpoint becomes the model, and what the run's last event sums up."""

from pathlib import Path

import pytest
import torch
from export_recipe import write_recipe
from small_suite import write_small_suite
from tiny_run import RECIPE

from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.recipe.load import load_recipe
from gemma4vec.training import run as training_run
from gemma4vec.training.engine.checkpoint import trained_weights
from gemma4vec.training.run import start_run, train_run

SECOND_STAGE = """
  - name: second
    data: [{{name: rows, path: {rows}}}]
    batch: {{rows: 4}}
    layout: {{row_tokens: 32, tokens_per_forward: 128, compile: false}}
    budget: {{steps: 3}}
    evaluation: {{checkpoint_seconds: 0}}
"""


@pytest.mark.parametrize("export", ["last", "best"])
def test_the_exported_checkpoint_is_the_one_asked_for(
    tmp_path: Path, export: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.9, 0.4])  # the best is step 4 of 6

    def evaluator(*_: object) -> object:
        return lambda: (next(scores), {"suite": "tiny"})

    exported: list[dict[str, torch.Tensor]] = []
    real = training_run.save_model

    def save_model(
        folder: Path, recipe: object, base: object, trained: dict[str, torch.Tensor], **others: object
    ) -> str:
        exported.append(dict(trained))
        return real(folder, recipe, base, trained, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(training_run.Trainer, "_evaluator", evaluator)
    monkeypatch.setattr(training_run, "save_model", save_model)
    suite = write_small_suite(tmp_path / "suite")  # there must be one, although the scores are made up here
    changes = [
        f"stages.0.evaluation.suite={suite}",
        "stages.0.evaluation.every_steps=2",
        f"stages.0.evaluation.export={export}",
    ]
    run = start_run(load_recipe(write_recipe(tmp_path), changes), tmp_path / "runs")
    train_run(run)
    step = {"last": 6, "best": 4}[export]
    assert run.events("finished")[0]["exported"] == {"checkpoint": export, "step": step}
    card = (run.model / "README.md").read_text()
    assert f"the {export} checkpoint, step {step} of stage contrast" in card
    folders = {"last": "step-00000006", "best": "best"}
    weights = {name: trained_weights(run.checkpoints / "0-contrast" / folder) for name, folder in folders.items()}
    for name, value in exported[0].items():
        assert torch.equal(value, weights[export][name])
    assert any(not torch.equal(weights["last"][name], weights["best"][name]) for name in weights["last"])


def test_the_best_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="export: best needs every_steps"):
        load_recipe(write_recipe(tmp_path), ["stages.0.evaluation.export=best"])


def test_the_last_event_counts_all_stages_and_a_resume_repeats_none(tmp_path: Path) -> None:
    run = start_run(load_recipe(write_recipe(tmp_path, RECIPE + SECOND_STAGE)), tmp_path / "runs")
    real, training_run.save_model = training_run.save_model, fail
    try:
        with pytest.raises(KeyboardInterrupt):
            train_run(run)
    finally:
        training_run.save_model = real
    train_run(RunFolder.open(run.path))
    stages = run.events("stage_finished")
    assert [stage["stage"] for stage in stages] == [0, 1]
    finished = run.events("finished")[-1]
    assert finished["tokens"] == sum(stage["tokens"] for stage in stages)
    assert finished["seconds"] == pytest.approx(sum(stage["seconds"] for stage in stages))


def fail(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_too_few_hard_negatives_in_a_later_stage_are_refused_before_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(training_run, "build", never)
    recipe = load_recipe(write_recipe(tmp_path, RECIPE + SECOND_STAGE), ["stages.1.task.hard_negatives=2"])
    with pytest.raises(InputError, match=r"stages\.1\.task\.hard_negatives: 2 asked for, 24 of 24 .* with 0"):
        train_run(start_run(recipe, tmp_path / "runs"))
