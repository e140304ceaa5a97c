"""How soon training data is there and how much memory it takes, for few rows and for millions.

Files are generated below FOLDER: `tensors` (input_ids int32 and attention_mask bool, [N, 128], 4 to 40 tokens a row, as
queries have) and `jsonl` (a query of 3 to 10 words, as web queries are, and a positive of 9 to 24, as titles and
snippets are). Each is opened twice, each time in a process of its own, which then draws batches; the second time is
what every run after the first one sees. A third process draws batches without equal texts
(`batch.no_duplicates`). Memory is the process's resident set above what it was when the libraries were loaded;
`highest_mib` is the highest one ever, as the system notes it, libraries included.
Example (seven million rows: 4.4 GB of disk as tensors, 3 GB as JSONL):

    python -m benchmarks.data.data_memory /tmp/data_memory --tensors 100000 7129444 --jsonl 100000 7129444
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.shared.record import as_program, say, write_result

WIDTH = 128
BATCH = 512


def write_tensors(path: Path, rows: int) -> None:
    """Random ids in `rows` rows, by way of a mapped file: the whole never stands in memory."""
    import torch

    raw = path.with_suffix(".raw")
    ids = torch.from_file(str(raw), shared=True, size=rows * WIDTH, dtype=torch.int32).view(rows, WIDTH)
    mask = torch.zeros(rows, WIDTH, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for start in range(0, rows, 65_536):
        part = slice(start, min(start + 65_536, rows))
        count = part.stop - start
        ids[part] = torch.randint(3, 250_000, (count, WIDTH), dtype=torch.int32, generator=generator)
        mask[part] = torch.arange(WIDTH)[None] < torch.randint(4, 41, (count, 1), generator=generator)
    torch.save({"input_ids": ids, "attention_mask": mask}, path)
    raw.unlink()


def write_jsonl(path: Path, rows: int) -> None:
    """Rows of words that are as frequent as a language's: halves of texts are made once and put together at random."""
    chance = np.random.default_rng(0)
    lengths = chance.integers(2, 11, 30_000)
    words = ["".join(chance.choice(list("etaoinshrdlcumwfgypbvk"), length)) for length in lengths]
    often = 1 / np.arange(2, len(words) + 2)
    often /= often.sum()

    def pool(least: int, most: int) -> list[str]:
        """Parts of texts; two of them are one of some hundred millions of texts."""
        counts = chance.integers(least, most + 1, 20_000)
        drawn = iter(chance.choice(len(words), int(counts.sum()), p=often).tolist())
        return [" ".join(words[next(drawn)] for _ in range(count)) for count in counts.tolist()]

    parts = [pool(1, 5), pool(2, 5), pool(3, 8), pool(3, 8), pool(3, 8)]
    with path.open("w", encoding="utf-8") as stream:
        for start in range(0, rows, 65_536):
            count = min(65_536, rows - start)
            a, b, c, d, e = (map(part.__getitem__, chance.integers(0, len(part), count).tolist()) for part in parts)
            stream.writelines(map('{{"query": "{} {}", "pos": ["{} {} {}"]}}\n'.format, a, b, c, d, e))


def child(kind: str, file: Path, batches: int, no_duplicates: bool) -> dict[str, Any]:
    """Open the file as training does and draw batches."""
    import torch  # noqa: F401  what every training has loaded

    from gemma4vec.data.batching.batches import batches as draw
    from gemma4vec.data.loading.load_rows import load_sources
    from gemma4vec.recipe.sources import source_of

    process = psutil.Process()
    before = process.memory_info().rss
    source = source_of(name="rows", source=kind, path=str(file), pair_with_itself=kind == "tensors")
    started = time.perf_counter()
    rows = load_sources([source]).rows
    opened = time.perf_counter()
    drawn = draw(rows, size=BATCH, hard_negatives=0, seed=0, no_duplicates=no_duplicates)
    next(drawn)
    first = time.perf_counter()
    peak = process.memory_info().rss
    for _ in range(batches):
        next(drawn)
        peak = max(peak, process.memory_info().rss)
    ended = time.perf_counter()
    return {
        "rows": len(rows),
        "seconds_to_open": opened - started,
        "seconds_to_first_batch": first - started,
        "milliseconds_a_batch": 1000 * (ended - first) / batches,
        "libraries_mib": before / 2**20,
        "data_mib": (peak - before) / 2**20,
        "peak_mib": peak / 2**20,
        "highest_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
    }


def measure(kind: str, rows: int, folder: Path, batches: int) -> dict[str, Any]:
    """One file, opened for the first and for the second time, and once for batches without equal texts."""
    file = folder / f"{rows}.{'pt' if kind == 'tensors' else 'jsonl'}"
    if not file.exists():
        say(f"writing {file}")
        (write_tensors if kind == "tensors" else write_jsonl)(file, rows)
    environment = os.environ | {"GEMMA4VEC_CACHE": str(folder / "cache")}
    times = []
    for which in ("first", "again", "no_duplicates"):
        command = [
            sys.executable,
            "-m",
            "benchmarks.data.data_memory",
            str(folder),
            "--child",
            kind,
            str(file),
            "--batches",
            str(batches),
        ]
        command += ["--no-duplicates"] if which == "no_duplicates" else []
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        times.append(json.loads(done.stdout))
        say(f"{kind} {rows:,} {which}: {times[-1]}")
    named = dict(zip(("first", "again", "no_duplicates"), times, strict=True))
    return {"kind": kind, "rows": rows, "file_mib": file.stat().st_size / 2**20, **named}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where files and cache go; remove it afterwards")
    parser.add_argument("--tensors", type=int, nargs="*", default=[], help="numbers of rows")
    parser.add_argument("--jsonl", type=int, nargs="*", default=[], help="numbers of rows")
    parser.add_argument("--batches", type=int, default=200, help=f"batches of {BATCH} rows that are drawn")
    parser.add_argument("--child", nargs=2, metavar=("KIND", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--no-duplicates", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="folder of the result; by default benchmarks/results")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.child[0], Path(given.child[1]), given.batches, given.no_duplicates)))
        return 0
    given.folder.mkdir(parents=True, exist_ok=True)
    wanted = [("tensors", rows) for rows in given.tensors] + [("jsonl", rows) for rows in given.jsonl]
    found = [measure(kind, rows, given.folder, given.batches) for kind, rows in wanted]
    name = "data-memory" + ("" if given.tensors and given.jsonl else "-tensors" if given.tensors else "-jsonl")
    write_result(name, {"batch": BATCH, "batches": given.batches, "files": found}, *[given.out] if given.out else [])
    return 0


if __name__ == "__main__":
    as_program(main)
