"""A program: what worlds of 1, 2 and 4 gloo processes compute. `python gloo_world.py BASE OUT`.

Processes are forked before anything is computed, so that libraries are imported once.
"""

import gc
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from float64_norms import use_float64_norms
from tiny_run import WithLoss, make_stage, rows

from gemma4vec.data.batching.mixture import MixedRows, Part
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.rows.scores import Scores
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.objective.gather import gather_rows
from gemma4vec.recipe import schema
from gemma4vec.training.engine.checkpoint import latest_checkpoint, trained_weights
from gemma4vec.training.engine.distributed import FollowedRun, World
from gemma4vec.training.loop import train_stage
from gemma4vec.training.tasks.contrastive import ContrastTask

ROWS = 7  # no world of 2 or 4 has equal shares of them
TERMS = [
    {"kind": "nce", "hardness": True, "matryoshka": [16, 8], "passage_passage": True, "symmetric": True},
    {"kind": "gor", "weight": 0.5},
    {"kind": "self_contrast", "weight": 0.3, "texts": "queries"},
]
PARTS: dict[str, Any] = {"batch": {"rows": ROWS}, "task": {"terms": TERMS, "hard_negatives": 2}}


def in_world(size: int, out: Path, work: Callable[[], Any]) -> list[Any]:
    """What `work` gives in each of `size` processes; of one, without a process group."""
    out.mkdir(parents=True)
    children = []
    gc.freeze()  # no child's collection looks through what is imported, which would copy it
    for rank in range(size):
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(1)
                if size > 1:
                    store = dist.FileStore(str(out / "store"), size)
                    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
                torch.save(work(), out / f"{rank}.pt")
                code = 0
            except BaseException:
                traceback.print_exc()
                code = 1
            os._exit(code)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        sys.exit(f"a process of {size} failed")
    return [torch.load(out / f"{rank}.pt", weights_only=False) for rank in range(size)]


def one_batch(base: Path, out: Path, dtype: torch.dtype, cached: bool) -> dict[str, Any]:
    """The whole loss of a batch and the gradients that an update would use."""
    lora, layout = {"dropout": 0.1}, {"tokens_per_forward": 64, "grad_cache": cached}
    stage = make_stage(base, out, dtype=dtype, lora=lora, layout=layout, negatives=2, **PARTS)
    fill(stage.built)
    stage.built.encoder.eval()  # each process drops out other values, which is no business of this
    loss = stage.task.loss(stage.built, next(stage.task.batches()))
    loss.value.backward()
    stage.world.sum_gradients(stage.built.trainable().values())
    whole = stage.world.whole(loss)
    gradients = {name: p.grad for name, p in stage.built.trainable().items()}
    terms = {name: float(value) for name, value in whole.terms.items()}
    facts = (whole.rows, whole.tokens, loss.rows)
    return {"loss": whole.value.item(), "gradients": gradients, "terms": terms, "facts": facts}


def scored_batch(base: Path, out: Path, cached: bool) -> dict[str, Any]:
    """The same of terms on scores and of rows that weigh by their source; those of one have no scores."""
    layout = {"tokens_per_forward": 64, "grad_cache": cached}
    stage = make_stage(base, out, dtype=torch.float64, layout=layout, negatives=2, batch={"rows": ROWS})
    terms = [
        {"kind": "nce", "source_weights": {"judged": 0.5, "plain": 2.0}},
        {"kind": "kl", "source_weights": {"plain": 0.0}},
        {"kind": "margin_mse", "teacher_scale": 0.1, "source_weights": {"plain": 0.0}},
    ]
    task = schema.Contrast.model_validate({"temperature": 0.1, "hard_negatives": 2, "terms": terms})
    given = [
        Row(row.query, row.pos, row.neg, scores=Scores((5.0,), (0.1 * n, 2.0 - n), "judge"))
        for n, row in enumerate(rows(2))
    ]
    mixed = MixedRows([Part("judged", given[:12]), Part("plain", rows(2)[12:])])
    settings = stage.settings.model_copy(update={"task": task})
    contrast = ContrastTask.make(settings, mixed, stage.built, max_tokens=48, seed=0)
    fill(stage.built)
    batch = next(contrast.batches())
    assert set(batch.texts.sources) == {"judged", "plain"}
    loss = contrast.loss(stage.built, batch)
    loss.value.backward()
    stage.world.sum_gradients(stage.built.trainable().values())
    whole = stage.world.whole(loss)
    gradients = {name: p.grad for name, p in stage.built.trainable().items()}
    return {"loss": whole.value.item(), "gradients": gradients, "terms": {n: float(v) for n, v in whole.terms.items()}}


def fill(built: EmbeddingModel) -> None:
    """Give the second adapter matrices values: zero at first, they would leave half of the gradients zero."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in built.trainable().items():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def whole_run(base: Path, out: Path, stop_at: int | None) -> dict[str, Any]:
    """A stage with dropout, trained in one go, or stopped before a step and gone on with."""
    world = World()
    folder = RunFolder.create(out, "tiny", "name: tiny\n").path if world.first else None
    folder = world.from_first(lambda: folder)
    assert folder is not None
    run = RunFolder(folder) if world.first else FollowedRun(folder)

    def stage() -> Any:
        return make_stage(base, out, run=run, lora={"dropout": 0.3}, negatives=2, **PARTS)

    if stop_at is not None:
        broken = stage()
        real = broken.task.loss

        def loss(built: Any, batch: Any) -> Any:
            found = real(built, batch)
            if len(run.events("step")) == stop_at:
                raise RuntimeError("stopped")
            world.wait()
            return found

        broken.task = WithLoss(broken.task, loss)
        try:
            train_stage(broken, seed=0)
        except RuntimeError:
            world.wait()
    last = stage()
    train_stage(last, seed=0)
    world.wait()
    checkpoint = latest_checkpoint(last.folder)
    assert checkpoint is not None
    model = {name: p.detach() for name, p in last.built.trainable().items()}
    events = run.events("step")
    return {"weights": trained_weights(checkpoint), "model": model, "losses": [event["loss"] for event in events]}


def gathered() -> dict[str, Any]:
    """Rows of uneven processes and the gradient of a sum over processes that weighs them differently."""
    world = World()
    mine = torch.full((world.rank + 1, 2), float(world.rank), requires_grad=True)
    every = gather_rows(mine, [n + 1 for n in range(world.size)])
    factors = torch.arange(len(every), dtype=torch.float32)[:, None] * (world.rank + 1)
    (every * factors).sum().backward()  # type: ignore[no-untyped-call]
    return {"every": every.detach(), "gradient": mine.grad}


DTYPES = {"fp64": torch.float64, "fp32": torch.float32}
SLOW = ("fp32",)


def main(base: Path, out: Path, dtypes: list[str]) -> None:
    use_float64_norms(pytest.MonkeyPatch())
    found: dict[str, Any] = {"gathered": in_world(3, out / "gathered", gathered)}
    for size in (1, 2, 4):
        ways = (False, True) if size > 1 else (False,)  # one process's plain loss is what the others are compared with
        for name in dtypes:
            for cached in ways:
                here = out / f"batch-{size}-{name}-{cached}"
                work = in_world(size, here, lambda d=DTYPES[name], c=cached, h=here: one_batch(base, h, d, c))  # type: ignore[misc]
                found[f"{size} {name} {cached}"] = work
        for cached in ways:
            here = out / f"scored-{size}-{cached}"
            found[f"{size} scored {cached}"] = in_world(size, here, lambda c=cached, h=here: scored_batch(base, h, c))  # type: ignore[misc]
    for name, stop_at in (("straight", None), ("resumed", 2)):
        here = out / name
        found[name] = in_world(2, here, lambda h=here, s=stop_at: whole_run(base, h, s))  # type: ignore[misc]
    torch.save(found, out / "found.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
