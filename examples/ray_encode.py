"""Encode a corpus on a Ray cluster: Ray Data gives the parts of the work to nodes, which share a file system.

    pip install 'ray[data]'
    python examples/ray_encode.py runs/my-run corpus.jsonl vectors/ --parts 32 --cores 4

A part is every N-th shard of the plan, as with `--shard` in an array of jobs. Ray retries a part whose node is lost;
what was finished stays. Nothing of the corpus passes through Ray. At the end everything is verified.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", help="run folder, run id or saved model, readable on all nodes")
parser.add_argument("input", type=Path, help="the texts, readable on all nodes")
parser.add_argument("output", type=Path, help="folder of the vectors, writable on all nodes")
parser.add_argument("--parts", type=int, default=8, help="parts of the work; several times the number of nodes")
parser.add_argument("--cores", type=float, default=2, help="cores of a part")
parser.add_argument("--gpus", type=float, default=0, help="GPUs of a part")
parser.add_argument("--option", action="append", default=[], help="of gemma4vec encode, such as --option=--dtype=f16")


def command(arguments: argparse.Namespace, *more: str) -> list[str]:
    """The command of a part, or of the check."""
    files = [str(arguments.input.absolute()), str(arguments.output.absolute())]
    return [sys.executable, "-m", "gemma4vec", "encode", arguments.run, *files, *arguments.option, *more]


def encode_part(row: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Encode one part on the node where Ray runs this."""
    part = f"{row['id'] + 1}/{arguments.parts}"
    threads = {"OMP_NUM_THREADS": str(max(1, int(arguments.cores)))}
    done = subprocess.run(
        command(arguments, "--shard", part), env={**os.environ, **threads}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"part {part}: {done.stderr.strip().splitlines()[-1:]}")
    return {"part": part, "said": done.stdout.strip()}


def main() -> int:
    arguments = parser.parse_args()
    import ray

    parts = ray.data.range(arguments.parts, override_num_blocks=arguments.parts)
    encoded = parts.map(
        encode_part,
        fn_kwargs={"arguments": arguments},
        num_cpus=arguments.cores,
        num_gpus=arguments.gpus or None,
    )
    for row in encoded.iter_rows():
        print(f"part {row['part']}: {row['said']}", flush=True)
    return subprocess.run(command(arguments, "--check")).returncode


if __name__ == "__main__":
    sys.exit(main())
