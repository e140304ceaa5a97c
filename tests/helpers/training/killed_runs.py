"""Kill training runs at chosen moments and go on with them: run as `python killed_runs.py FOLDER`.

One process imports everything once and forks a child for each run, so that a real `kill -9` costs no minute. It writes
`FOLDER/outcomes.json`: for each moment how the first child ended, what it printed, and how the second one ended.
"""

import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a process that has touched a GPU cannot be forked

import sentence_transformers  # noqa: F401  # imported here, once
import torch

from gemma4vec.cli.main import execute
from gemma4vec.ledger.run_folder import list_runs
from gemma4vec.machine import prefetch
from gemma4vec.model.save import write_model as saving
from gemma4vec.training import loop
from gemma4vec.training.engine import checkpoint
from gemma4vec.training.tasks import contrastive as contrast


def at_call(number: int, owner: Any, name: str, stop: Callable[[], Any], *, after: bool = True) -> None:
    """Stop at the `number`-th call (from 1) of `owner.name`, when it is done or before it begins."""
    real, calls = getattr(owner, name), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and not after:
            stop()
        found = real(*args, **kwargs)
        if calls == number and after:
            stop()
        return found

    setattr(owner, name, counted)


def in_backward(number: int, stop: Callable[[], Any]) -> None:
    """Stop in the middle of the `number`-th backward pass."""
    real, calls = contrast.ContrastTask.loss, 0

    def loss(self: Any, built: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        found = real(self, built, batch)
        if calls == number:
            found.value.register_hook(lambda gradient: stop())
        return found

    contrast.ContrastTask.loss = loss  # type: ignore[method-assign]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# Two batches a step, six steps; a checkpoint is written after each.
MOMENTS: dict[str, Callable[[], None]] = {
    "kill before the first checkpoint": lambda: at_call(1, checkpoint, "write_weights", kill, after=False),
    "kill in a forward pass": lambda: at_call(5, contrast.ContrastTask, "loss", kill),
    "kill between update and copy": lambda: at_call(3, torch.optim.AdamW, "step", kill),
    "kill while a checkpoint is written": lambda: at_call(4, checkpoint, "write_weights", kill),
    "kill before the older checkpoint goes": lambda: at_call(2, checkpoint.shutil, "rmtree", kill, after=False),
    "kill while the model is written": lambda: at_call(1, saving, "model_card", kill),
    "interrupt in a forward pass": lambda: at_call(6, contrast.ContrastTask, "loss", interrupt),
    "interrupt in a backward pass": lambda: in_backward(7, interrupt),
    "interrupt between update and copy": lambda: at_call(4, torch.optim.AdamW, "step", interrupt),
    "interrupt while taking a batch": lambda: at_call(6, prefetch.Prefetcher, "take", interrupt),
    "terminate in a forward pass": lambda: at_call(6, contrast.ContrastTask, "loss", terminate),
    "terminate while the model is written": lambda: at_call(1, saving, "model_card", terminate),
    "interrupt while noting a step": lambda: at_call(4, loop.StepBudget, "seen", interrupt),
}


# Near to others: `make slow` runs them.
SLOW = (
    "kill before the first checkpoint",
    "kill between update and copy",
    "kill before the older checkpoint goes",
    "interrupt in a forward pass",
    "interrupt in a backward pass",
    "interrupt while noting a step",
)


def child(work: Callable[[], int], log: Path) -> int:
    """Run `work` in a process of its own; its exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    gc.freeze()  # no child's collection looks through what is imported, which would copy it
    number = os.fork()
    if number == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = 99
        try:
            code = work()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def main(folder: Path, asked: list[str]) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    recipe = str(folder / "recipe.yaml")
    outcomes: dict[str, Any] = {}
    for number, (moment, arm) in enumerate({"": lambda: None, **{name: MOMENTS[name] for name in asked}}.items()):
        out = folder / f"runs{number}"

        # The checkpoints of an interrupted run are made by the signal alone, so that those are tested too.
        signaled = moment.startswith(("interrupt", "terminate"))
        seldom = ["stages.0.evaluation.checkpoint_seconds=1000"] if signaled else []

        def first(arm: Callable[[], None] = arm, out: Path = out, seldom: list[str] = seldom) -> int:
            arm()
            return execute(["train", recipe, *seldom, "--out", str(out)])

        code = child(first, out.with_suffix(".first"))
        run = list_runs(out)[0]
        kept = sorted(path.name for path in run.checkpoints.rglob("step-*"))
        again = None
        if moment:
            again = child(lambda run=run: execute(["train", "--resume", str(run.path)]), out.with_suffix(".again"))  # type: ignore[misc]
        outcomes[moment] = {
            "run": str(run.path),
            "first": code,
            "said": out.with_suffix(".first").read_text(),
            "checkpoints": kept,
            "again": again,
            "said_again": out.with_suffix(".again").read_text() if moment else "",
        }
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
