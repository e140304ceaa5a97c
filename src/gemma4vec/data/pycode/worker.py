"""Extract functions in several processes.

Each child reads a list of files from stdin and writes the result to stdout. This avoids forking a process that may run
threads and importing the caller's script again. A child runs as `python -m gemma4vec.data.pycode.worker`.
"""

import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gemma4vec.data.pycode.extract import Extraction, Function, extract
from gemma4vec.data.pycode.walk import SourceFile
from gemma4vec.errors import WorkError
from gemma4vec.machine.processes.child_environment import child_environment

logger = logging.getLogger(__name__)

SHARD_BYTES = 16_000_000


def extract_files(files: Sequence[SourceFile], processes: int | None = None) -> Extraction:
    """Extract the functions of all files, in the files' order for any number of processes.

    Args:
        files: files to read.
        processes: number of child processes; 1 uses this process. By default one per core, at most 8; 1 for few files.

    Raises:
        WorkError: a worker died.
    """
    shards = _split_into_shards(files)
    processes = processes or (1 if len(shards) < 2 else min(8, len(os.sched_getaffinity(0))))
    if processes == 1:
        return _merge([_extract_shard(shard) for shard in shards])
    done: list[Extraction] = []
    with ThreadPoolExecutor(processes) as pool:
        try:
            for result in pool.map(_extract_in_child, shards):
                done.append(result)
                logger.info(f"reading Python files: {sum(map(len, shards[: len(done)]))} of {len(files)}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return _merge(done)


def _split_into_shards(files: Sequence[SourceFile]) -> list[list[SourceFile]]:
    shards: list[list[SourceFile]] = []
    filled = SHARD_BYTES
    for file in files:
        if filled >= SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(file)
        filled += file.size
    return shards


def _merge(results: Sequence[Extraction]) -> Extraction:
    functions: list[Function] = []
    reasons: Counter[str] = Counter()
    for result in results:
        functions += result.functions
        reasons.update(result.reasons)
    return Extraction(functions, reasons)


def _extract_shard(shard: Sequence[SourceFile]) -> Extraction:
    results = []
    for file in shard:
        try:
            source = (Path(file.root) / file.path).read_bytes()
        except OSError:
            results.append(Extraction([], Counter({"unreadable file": 1})))
            continue
        results.append(extract(source, file.path, file.package))
    return _merge(results)


def _extract_in_child(shard: list[SourceFile]) -> Extraction:
    child = subprocess.run(
        [sys.executable, "-m", "gemma4vec.data.pycode.worker"],
        input=pickle.dumps(shard),
        capture_output=True,
        env=child_environment(),
        check=False,
    )
    if child.returncode != 0:
        last = child.stderr.decode("utf-8", errors="replace").strip().rsplit("\n", 1)[-1]
        raise WorkError(f"reading Python files: a worker process failed ({last or child.returncode}); run it again")
    return pickle.loads(child.stdout)


def main() -> None:
    """Run a child: read a pickled list of files from stdin, write a pickled `Extraction` to stdout."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a child without a traceback
    gc.disable()  # collecting cycles while syntax trees are built takes a third of the time
    shard = pickle.load(sys.stdin.buffer)
    sys.stdout.buffer.write(pickle.dumps(_extract_shard(shard)))


if __name__ == "__main__":
    main()
