"""Training and encoding on another device give what they give on the CPU, and steps seldom wait for it.

The device is pretended (`pretend_gpu`): tensors of two devices in one operation are refused as a GPU refuses them.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import forked
import pretended
import pytest
from asked import asked_for, with_slow

TESTS = Path(__file__).resolve().parents[2]
# What a step may wait for: once all backward passes are on their way, each batch's loss, and the gradient's norm.
READ = "aten._local_scalar_dense.default"
ALLOWED = {
    f"training.loop._forward_backward: {READ}": 2 * 2,
    f"training.loop._train_step.<locals>.<genexpr>: {READ}": 2 * 2,
    f"training.engine.optimizer.MasterAdamW.step: {READ}": 2,
}
# Read once for each term, and the temperature: what the log shows of them.
OF_TERMS = "training.loop._mean_terms."
# The small encoder is another library's: it looks into its own inputs.
OF_CONTEXT = "model.readout.context_encoder.ContextEncoder.forward:"


EVERY_CASE = with_slow(pretended.CASES, pretended.SLOW)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the cases that run: all of them take a minute and a half."""
    asked = asked_for(request, "case")
    cases = [case for case in pretended.CASES if case in asked]
    folder = tmp_path_factory.mktemp("pretended")
    paths = [TESTS.parent / "src", *(TESTS / "helpers" / name for name in ("models", "training"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    environment |= {"GEMMA4VEC_CACHE": str(folder / "cache"), "GEMMA4VEC_HOME": str(folder / "home")}
    command = [sys.executable, pretended.__file__, str(folder), *cases]
    done = forked.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "outcomes.json").read_text())
    return found


def test_the_pretence_refuses_two_devices_and_notes_what_waits(outcomes: dict[str, Any]) -> None:
    harness = outcomes["harness"]
    assert "Expected all tensors to be on the same device" in harness["refused"]
    assert harness["before"] == 0
    assert harness["noted"] == [
        "aten._local_scalar_dense.default",
        "aten._to_copy.default",
        "aten.index.Tensor",
        "aten.nonzero.default",
    ]
    assert harness["after"] == 6, "each of the six, and neither a copy that runs beside nor a size that is known"


@pytest.mark.parametrize("case", EVERY_CASE)
def test_a_run_there_is_the_run_on_the_cpu(outcomes: dict[str, Any], case: str) -> None:
    found = outcomes[case]
    assert "error" not in found, found["error"]
    assert len(found["cpu"]) == len(found["gpu"]) == 2
    for (loss, norm), (loss_there, norm_there) in zip(found["cpu"], found["gpu"], strict=True):
        assert loss_there == pytest.approx(loss, rel=1e-4) and norm_there == pytest.approx(norm, rel=1e-4)
    assert found["difference"] < 1e-3


@pytest.mark.parametrize("case", EVERY_CASE)
def test_steps_wait_for_losses_and_the_norm_alone(outcomes: dict[str, Any], case: str) -> None:
    """Not once a micro-batch: each wait leaves a GPU without work for a moment."""
    waits = {
        place: times
        for place, times in outcomes[case]["waits"].items()
        if not (case == "all terms" and place.startswith(OF_TERMS))
        and not (case == "contextual_token" and place.startswith(OF_CONTEXT))
    }
    assert waits == ALLOWED
