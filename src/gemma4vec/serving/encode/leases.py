"""Lease files: which process works on which shard, among processes that share nothing but a folder.

A lease is a file that is created exclusively and touched while its owner works. It is stale if it was not touched for
some time, or if its owner was a process of this machine that no longer runs. A stale lease is taken over. Two owners at
once do no harm: both write the same shard, whole.
"""

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from gemma4vec.files import disk_errors, is_running, machine_name
from gemma4vec.reading.json_values import load_foreign_json

BEATS = 6  # touches within the time after which a lease is stale


class Leases:
    """The leases of a job.

    Args:
        folder: where the lease files are, shared by all machines.
        seconds: time without a touch after which a lease is stale.
    """

    def __init__(self, folder: Path, seconds: float):
        self.folder, self.seconds = folder, seconds
        self._token = uuid.uuid4().hex
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Own the lease `name` inside the block; the value is False where another process has it.

        Raises:
            DiskError: the folder cannot be written.
        """
        path = self.folder / f"{name}.lease"
        with disk_errors(path):
            owned = self._create(path) or (self._is_stale(path) and self._take_over(path))
        if not owned:
            yield False
            return
        stop = threading.Event()
        beat = threading.Thread(target=self._touch, args=(path, stop), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            stop.set()
            beat.join()
            self._release(path)

    def _create(self, path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            owner = {"machine": machine_name(), "process": os.getpid(), "token": self._token}
            os.write(descriptor, json.dumps(owner).encode())
        finally:
            os.close(descriptor)
        return True

    def _is_stale(self, path: Path) -> bool:
        owner = _owner(path)
        if owner.get("machine") == machine_name():
            process = owner.get("process")
            if isinstance(process, int) and (not is_running(process) or self._was_another(process, owner)):
                return True
        try:
            age = self._now() - path.stat().st_mtime
        except FileNotFoundError:
            return False  # released meanwhile; the next look finds the shard done or the lease free
        return age > self.seconds

    def _was_another(self, process: int, owner: dict[str, object]) -> bool:
        """Whether this process has the number of one that is dead."""
        return process == os.getpid() and owner.get("token") != self._token

    def _take_over(self, path: Path) -> bool:
        """Move a stale lease away, which one of several processes can do, and create a new one."""
        away = path.with_name(f"{path.name}.{self._token}")
        try:
            os.rename(path, away)
        except FileNotFoundError:
            return False
        away.unlink(missing_ok=True)
        return self._create(path)

    def _now(self) -> float:
        """The time of the file server, whose clock the leases' times come from."""
        probe = self.folder / f".{machine_name()}-{os.getpid()}.clock"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now

    def _touch(self, path: Path, stop: threading.Event) -> None:
        while not stop.wait(self.seconds / BEATS):
            with contextlib.suppress(OSError):  # taken over, or the folder is unreachable for a moment
                os.utime(path)

    def _release(self, path: Path) -> None:
        if _owner(path).get("token") == self._token:
            with contextlib.suppress(OSError):
                path.unlink()


def _owner(path: Path) -> dict[str, object]:
    """What a lease says of its owner; nothing, if its owner was killed before it could write."""
    with contextlib.suppress(OSError, ValueError):
        read = load_foreign_json(path)
        if isinstance(read, dict):
            return read
    return {}
