"""A plan that trains an encoder and a decoder of its vectors: jobs, results, a kill in the decoder's training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_plan import outline_of, write_plan_place

from gemma4vec.errors import InputError, WorkError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.inverter.decoder_folder import read_facts
from gemma4vec.model.inverter.identity import encoder_identity
from gemma4vec.pipeline.plan.dry_run import estimate_plan
from gemma4vec.pipeline.plan.plan_state import PlanFolder
from gemma4vec.pipeline.plan.run_plan import run_plan
from gemma4vec.pipeline.worker import Worker
from gemma4vec.training.tasks.vector_to_text import VectorToTextTask

COMMAND = "gemma4vec pipeline plan.yaml --resume"
Work = Callable[[Any], None]
STEPS: dict[str, Any] = {
    "encoder": {"train": "pairs.yaml"},
    "decoder": {"train": "decoder.yaml", "inverts": "encoder", "share": 2},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_plan_place(tmp_path_factory.mktemp("plan"))
    stage = {
        "name": "invert",
        "data": [{"name": name, "path": str(root / f"{name}.jsonl")} for name in ("one", "two")],
        "task": {"kind": "vector_to_text", "embedder": "to/come", "prefix_tokens": 2, "sampled_vocabulary": None},
        "batch": {"rows": 4},
        "layout": {"row_tokens": 32, "tokens_per_forward": 256, "compile": False},
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 1},
        "budget": {"steps": 4},
        "evaluation": {"checkpoint_seconds": 0},
    }
    model = {"base": str(root / "base"), "dtype": "fp32", "attention": "causal", "max_tokens": 32, "lora": {"rank": 2}}
    recipe = {"name": "decoder", "model": model, "stages": [stage]}
    (root / "decoder.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return root


def here(work: Work, argument: Any, log: Path, look: Callable[[], None]) -> int:
    """Run a job in this process."""
    work(argument)
    look()
    return 0


def test_the_decoder_waits_for_the_encoder_and_is_no_result_to_be_scored(place: Path) -> None:
    outline = outline_of(place, STEPS)
    job = outline.jobs["decoder"]
    assert (job.kind, job.needs, outline.results) == ("decode", ("encoder",), ["encoder"])
    assert job.recipe is not None and job.recipe.stages[0].task.embedder == str(place / "base")  # type: ignore[union-attr]
    final = outline.final_recipe(job, 3.0, Path("/made/encoder"))
    assert final.stages[0].task.embedder == "/made/encoder" and final.stages[0].budget.minutes == 3.0  # type: ignore[union-attr]
    assert final.model.start is None
    rows = {row["key"]: row for row in estimate_plan(outline, {})["jobs"]}
    assert (
        rows["decoder"]["trainable"] > 0 and rows["decoder"]["from"] == ["encoder"] and rows["decoder"]["minutes"] > 0
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {**load_file(path / "prefix.safetensors"), **load_file(path / "base" / "model.safetensors")}


def test_a_killed_plan_goes_on_to_the_same_decoder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outline = outline_of(place, STEPS)
    whole = run_plan(outline, tmp_path / "whole", command=COMMAND, execute=here)
    rows = {row["key"]: row for row in whole["steps"]}
    assert (
        rows["decoder"]["status"] == "done"
        and rows["decoder"]["dev"] is None
        and rows["decoder"]["parents"] == ["encoder"]
    )
    assert set(rows["decoder"]["held_out"]) == {"own vectors", "another text's"}
    assert [one["key"] for one in whole["differences"]] == ["encoder"]
    assert any(note.startswith("decoder: a decoder; held-out loss in nats a token: ") for note in whole["notes"])
    text = (tmp_path / "whole" / "results.md").read_text() + (tmp_path / "whole" / "results.html").read_text()
    assert text.count("decoder of encoder's vectors") >= 1 and "held-out loss in nats" in text
    facts = read_facts(Path(rows["decoder"]["model"]))
    assert facts.encoder == encoder_identity(Embedder.load(rows["encoder"]["model"]))

    real, calls = VectorToTextTask.loss, 0

    class Killed(BaseException):
        """What nothing in the package catches."""

    def loss(self: VectorToTextTask, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Killed
        return real(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(VectorToTextTask, "loss", loss)
        run_plan(outline, tmp_path / "out", command=COMMAND, execute=here)
    before = PlanFolder(tmp_path / "out").records()
    assert (before["encoder"].status, before["decoder"].status) == ("done", "running")
    run_plan(outline, tmp_path / "out", command=COMMAND, execute=here)
    after = PlanFolder(tmp_path / "out").records()["decoder"]
    assert (after.run, after.status) == (before["decoder"].run, "done")
    steps = [event["step"] for event in RunFolder(Path(str(after.run))).events("step")]
    assert steps == [1, 2, 3, 4]
    expected, found = weights(Path(rows["decoder"]["model"])), weights(Path(str(after.model)))
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_kill_9_of_the_decoders_process_leaves_a_plan_that_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import killed_plan
    from killed_plan import run_and_die

    monkeypatch.setenv("PYTHONPATH", str(Path(killed_plan.__file__).parent))
    outline, worker = outline_of(place, STEPS), Worker(tmp_path / "worker.log")
    begun: list[str] = []

    def killed(work: Work, argument: Any, log: Path, look: Callable[[], None]) -> int:
        begun.append(getattr(argument, "key", argument.name if hasattr(argument, "name") else ""))
        worker.start(run_and_die if begun[-1] == "decoder" and begun.count("decoder") == 1 else work, argument, log)
        return worker.wait(look)

    try:
        with pytest.raises(WorkError, match=r"^decoder: .*; what is finished is kept; go on with: gemma4vec"):
            run_plan(outline, tmp_path / "out", command=COMMAND, execute=killed)
        results = run_plan(outline, tmp_path / "out", command=COMMAND, execute=killed)
    finally:
        worker.close()
    assert begun.count("encoder") == 1 and begun.count("decoder") == 2
    assert [row["status"] for row in results["steps"]] == ["done", "done"]
    assert (Path(results["steps"][1]["model"]) / "decoder.json").is_file()
    assert json.loads((tmp_path / "out" / "results.json").read_text())["steps"][1]["held_out"]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (STEPS | {"more": {"train": "pairs", "start": "decoder"}}, "steps.more: decoder makes a decoder, on which"),
        (STEPS | {"decoder": STEPS["decoder"] | {"start": "encoder"}}, "start is for a training of a model"),
        (STEPS | {"decoder": STEPS["decoder"] | {"train": "pairs"}}, "pairs.yaml has the task contrast, inverts wants"),
        (
            {"decoder": {"train": "decoder"}},
            "decoder.yaml has the task vector_to_text, which makes no model; name a step",
        ),
    ],
)
def test_a_step_that_makes_no_sense_is_one_line(place: Path, steps: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        outline_of(place, steps)
    assert said in str(refused.value) and "\n" not in str(refused.value)
