"""Several processes train one model: `torchrun --nproc-per-node 2 -m gemma4vec train RECIPE`.

Every process draws the same batches of `batch.rows` rows, and encodes its own share of them. Vectors are gathered, each
process computes its part of the loss, and gradients are summed before an update. DistributedDataParallel is not used: a
batch has many forwards and backwards, and one sum at the end is enough. Only the first process writes. The backend is
NCCL on GPUs and gloo on CPUs.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.memory import torchrun_count
from gemma4vec.machine.terminal import fall_silent
from gemma4vec.training.engine.task import Loss

T = TypeVar("T")
# The others wait while the first process evaluates, or prepares data.
_PATIENCE = timedelta(hours=6)
# Values summed in one operation: 128 MB in fp32.
_BUCKET = 2**25


class World:
    """The processes that train together, as one of them sees them. With a single process every method does nothing.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    def __init__(self) -> None:
        joined = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def counts(self, rows: int) -> list[int]:
        """Number of rows of each process; they differ by one at most.

        Raises:
            InputError: fewer rows than processes.
        """
        if rows < self.size:
            raise InputError(f"batch.rows: {rows} rows for {self.size} processes; use at least one row for each")
        return [rows * (n + 1) // self.size - rows * n // self.size for n in range(self.size)]

    def share(self, rows: int) -> slice:
        """The rows of this process."""
        before = sum(self.counts(rows)[: self.rank])
        return slice(before, before + self.counts(rows)[self.rank])

    def seed(self, seed: int) -> int:
        """A seed for this process alone, so that dropout differs between processes."""
        return seed + self.rank * 1_000_003

    def whole(self, loss: Loss) -> Loss:
        """Sum the loss over all processes; the result has no graph."""
        if self.size == 1:
            return replace(loss, value=loss.value.detach())
        cells = loss.tokens / (1.0 - loss.padding_share)
        parts = [*(float(term) for term in loss.terms.values()), loss.value.item(), loss.tokens, loss.rows, cells]
        total = torch.tensor(parts, dtype=torch.float64, device=loss.value.device)
        dist.all_reduce(total)
        *terms, value, tokens, rows, all_cells = total.unbind()
        named, padding = dict(zip(loss.terms, terms, strict=True)), float(1 - tokens / all_cells)
        return replace(loss, value=value, terms=named, tokens=int(tokens), rows=int(rows), padding_share=padding)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each parameter's gradient by the sum over all processes, computed in fp32 or wider."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        for bucket in _buckets(gradients) if self.size > 1 else ():
            wide = torch.float64 if bucket[0].dtype == torch.float64 else torch.float32
            flat = torch.cat([gradient.flatten().to(wide) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what `make` returns in the first process; the others wait for it and do not call it."""
        if self.size == 1:
            return make()
        holder = [make() if self.first else None]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]  # type: ignore[return-value]  # the first process put it there

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in order of rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Run the block in the first process alone, then in the others, which find its results."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


class FollowedRun(RunFolder):
    """The run folder in all processes but the first: they read it and write nothing."""

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Do nothing: the first process holds the lock."""
        yield

    def event(self, name: str, **fields: Any) -> None:
        """Do nothing: the first process writes it."""

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Do nothing: the first process writes it."""

    def update_manifest(self, **fields: Any) -> None:
        """Do nothing: the first process writes it."""


def join_world() -> World:
    """Join the other processes if torchrun has started several; otherwise return a world of one process."""
    if torchrun_count("WORLD_SIZE", 1) > 1 and not dist.is_initialized():
        on_gpus = choose_device().name == "cuda"
        if on_gpus:
            torch.cuda.set_device(torchrun_count("LOCAL_RANK", 0))
        dist.init_process_group("nccl" if on_gpus else "gloo", timeout=_PATIENCE)
        if dist.get_rank() > 0:
            fall_silent()
    return World()


def leave_world() -> None:
    """Leave the other processes; each continues alone."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Group gradients of one dtype, up to `_BUCKET` values a group."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and (bucket[0].dtype != gradient.dtype or sum(g.numel() for g in bucket) >= _BUCKET):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
