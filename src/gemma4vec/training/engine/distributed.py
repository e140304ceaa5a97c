"""Several processes train one model: `torchrun --nproc-per-node 2 -m gemma4vec train RECIPE`.

Every process draws the same batches of `batch.rows` rows, and encodes its own share of them. Vectors are gathered, each
process computes its part of the loss, and gradients are summed before an update. DistributedDataParallel is not used: a
batch has many forwards and backwards, and one sum at the end is enough. Only the first process writes. The backend is
NCCL on GPUs and gloo on CPUs.

There are two process groups. Tensors of a step go through the default one, where a process waits minutes for the
others. Everything else (what the first process decides, evaluates or prepares) goes through a second one, always gloo,
where it waits hours, and no GPU is busy with waiting. A dead process is found sooner in both (`processes.heartbeat`).
"""

import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import atomic_write
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.memory import torchrun_count
from gemma4vec.machine.terminal import fall_silent
from gemma4vec.training.engine.task import Loss
from gemma4vec.training.processes.heartbeat import Heartbeat, patience_seconds
from gemma4vec.training.processes.meeting import connect, meet

T = TypeVar("T")
# In a step the slowest process may compile its layers.
_PATIENCE_IN_A_STEP = timedelta(minutes=15)
# The others wait while the first process evaluates, or prepares data.
_PATIENCE = timedelta(hours=6)
# A network file system may show a new file late on other machines.
_SECONDS_TO_APPEAR = 10.0
# Values summed in one operation: 128 MB in fp32.
_BUCKET = 2**25
# What gloo and NCCL say of a process that has ended.
_LOST = re.compile(
    r"Connection (closed|reset|refused)|closed by peer|Broken pipe|timed? ?out|NCCL|Socket", re.IGNORECASE
)

# The group for everything but a step's tensors; None: the default one.
_patient: dist.ProcessGroup | None = None
_heart: Heartbeat | None = None


class World:
    """The processes that train together, as one of them sees them. With a single process every method does nothing.

    Attributes:
        rank: number of this process, from 0.
        local_rank: its number on its machine, from 0, which chooses its GPU.
        size: number of processes.
    """

    def __init__(self) -> None:
        joined = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)
        self.local_rank = torchrun_count("LOCAL_RANK", 0)

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
        dist.broadcast_object_list(holder, src=0, group=_patient)
        return holder[0]  # type: ignore[return-value]  # the first process put it there

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in order of rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=_patient)
        return found

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Whether each flag is set in at least one process; every process must call this."""
        if self.size == 1:
            return list(flags)
        device = "cpu" if _patient is not None or dist.get_backend() == "gloo" else "cuda"
        found = torch.tensor([int(flag) for flag in flags], dtype=torch.int32, device=device)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=_patient)
        return [bool(flag) for flag in found.tolist()]

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            dist.barrier(group=_patient)

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Run the block in the first process alone, then in the others, which find its results.

        Machines have caches of their own: the first process of each other machine goes before the rest.
        """
        turn = 0 if self.first else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self.wait()
        yield
        for _ in range(2 - turn):
            self.wait()

    def check_shared(self, folder: Path) -> None:
        """Refuse a folder that is not the same one in every process: the others read what the first writes.

        Raises:
            InputError: a machine has another folder of that name, or none; raised in every process.
            WorkError: the folder cannot be written.
        """
        if self.size == 1:
            return
        nonce = self.from_first(lambda: secrets.token_hex(16))
        file = folder / f".shared-{nonce}"
        if self.first:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as stream:
                stream.write(nonce)
        self.wait()
        seen = _reads(file, nonce)
        found = self.gather((seen, socket.gethostname()))
        if self.first:
            file.unlink(missing_ok=True)
        for rank, (ok, host) in enumerate(found):
            if not ok:
                raise InputError(
                    f"{folder}: process {rank} on {host} does not see what process 0 on {found[0][1]} writes there; "
                    "choose a folder that all machines share, with --out or $GEMMA4VEC_HOME"
                )


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
    """Join the other processes if torchrun has started several; otherwise return a world of one process.

    Raises:
        InputError: torchrun's variables are wrong, or there are more processes than GPUs on this machine.
        WorkError: the others cannot be reached.
    """
    global _patient, _heart
    if torchrun_count("WORLD_SIZE", 1) > 1 and not dist.is_initialized():
        patience = patience_seconds()
        rank, size = torchrun_count("RANK", 0), torchrun_count("WORLD_SIZE", 1)
        on_gpus = choose_device().name == "cuda"
        if on_gpus:
            torch.cuda.set_device(_own_gpu())
        try:
            store = connect()
            name = meet(store, rank, size)
            # A connection of its own: a waiting collective blocks the one that it uses.
            _heart = Heartbeat(dist.PrefixStore(f"{name}/heartbeat", connect(again=True)), rank, size, patience)
            _heart.start()  # before the connections, which wait long for a process that has ended meanwhile
            store, backend = dist.PrefixStore(f"{name}/processes", store), "nccl" if on_gpus else "gloo"
            dist.init_process_group(backend, timeout=_PATIENCE_IN_A_STEP, store=store, rank=rank, world_size=size)
            _patient = dist.new_group(timeout=_PATIENCE, backend="gloo")
        except (RuntimeError, ValueError, KeyError) as error:
            raise WorkError(
                f"the {os.environ['WORLD_SIZE']} processes cannot reach each other ({_short(error)}); check "
                "MASTER_ADDR, MASTER_PORT and the network between the machines (GLOO_SOCKET_IFNAME names its interface)"
            ) from error
        if rank > 0:
            fall_silent()
    return World()


def leave_world() -> None:
    """Leave the other processes, when all have come here; each continues alone."""
    global _patient, _heart
    if dist.is_available() and dist.is_initialized():
        World().wait()
        if _heart is not None:
            _heart.stop()
        dist.destroy_process_group()
        _patient = _heart = None


def when_lost(record: Callable[[str], None]) -> None:
    """Call `record` with a sentence before this process is ended because another one is gone."""
    if _heart is not None:
        _heart.before_end = record


@contextmanager
def name_lost_processes(how_to_go_on: str) -> Iterator[None]:
    """Say in one line that another process has ended, where gloo or NCCL fails because of it.

    Raises:
        WorkError: a collective failed.
    """
    try:
        yield
    except RuntimeError as error:
        joined = dist.is_available() and dist.is_initialized()
        if not joined or isinstance(error, torch.cuda.OutOfMemoryError) or not _LOST.search(str(error)):
            raise
        raise WorkError(
            f"another process of this training has ended, or cannot be reached ({_short(error)}); its own last line "
            f"says why; go on with: {how_to_go_on}"
        ) from error


def _own_gpu() -> int:
    """The GPU of this process: its number on this machine, since RANK counts over all machines.

    Raises:
        InputError: there are fewer GPUs.
    """
    local, gpus = torchrun_count("LOCAL_RANK", 0), torch.cuda.device_count()
    if local >= gpus:
        raise InputError(f"LOCAL_RANK={local}, but this machine has {gpus} GPUs; start with --nproc-per-node {gpus}")
    return local


def _reads(file: Path, nonce: str) -> bool:
    """Whether the file appears here with these contents."""
    last = time.monotonic() + _SECONDS_TO_APPEAR
    while True:
        with suppress(OSError):
            if file.read_text(encoding="utf-8", errors="replace") == nonce:
                return True
        if time.monotonic() > last:
            return False
        time.sleep(0.1)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


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
