"""`make same-loss`: a refactoring shows the identical loss.

Tiny recipes (`same_loss_recipes`) are trained with this checkout, and every step's loss, gradient norm and terms, the
scores and the final weights are compared bit by bit with values of an earlier commit. Those are stored in
`same_loss.json` with the versions and the processor that made them. Bits differ between machines: elsewhere, and before
a difference is reported, the values are computed again on this machine from the commit that the file names.

    python tools/same_loss.py                         compare with the stored values
    python tools/same_loss.py --base COMMIT           compare with any commit, computed now
    python tools/same_loss.py --keep [--base COMMIT]  store the values of a commit (default: HEAD)

Exit codes: 0 equal, 1 different (the first difference is named), 2 bad usage.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from same_loss_recipes import Json, Tree

ROOT = Path(__file__).resolve().parent.parent
STORED = Path(__file__).resolve().parent / "same_loss.json"
WORKER = Path(__file__).resolve().parent / "same_loss_worker.py"


class FailedError(Exception):
    """Something that is not a difference: a commit that is not there, a training that fails."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit code."""
    parser = argparse.ArgumentParser(description="Compare the losses of tiny trainings bit by bit with a commit's.")
    parser.add_argument("--base", metavar="COMMIT", help="compare with this commit instead of the stored values")
    parser.add_argument("--keep", action="store_true", help="store the values of --base (default: HEAD)")
    options = parser.parse_args(arguments)
    try:
        if options.keep:
            return keep(options.base or "HEAD")
        return compare(options.base)
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def keep(name: str) -> int:
    """Compute the values of a commit and store them."""
    commit = commit_hash(name)
    values = {"commit": commit, **values_of_commit(commit)}
    STORED.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(f"stored the values of {commit[:7]} in {STORED.relative_to(ROOT)}")
    return 0


def compare(base: str | None) -> int:
    """Compare this checkout with a commit, or with the stored values."""
    if base is not None:
        commit = commit_hash(base)  # before minutes are spent
        return verdict(first_difference(values_of_commit(commit), values_of_tree(ROOT)), commit)
    stored: Tree = json.loads(STORED.read_text(encoding="utf-8"))
    commit = str(stored["commit"])
    now = values_of_tree(ROOT)
    if not first_difference(stored, now):
        return verdict("", commit)
    # Not yet the code's fault: other libraries, another processor or other recipes change bits too.
    why = changed_environment(stored, now)
    print(f"the stored values were made with {why}" if why else "the stored values differ; computing them again")
    return verdict(first_difference(values_of_commit(commit_hash(commit)), now), commit)


def verdict(difference: str, commit: str) -> int:
    """Print the result; the exit code."""
    if difference:
        print(f"different from {commit[:7]}: {difference}")
        return 1
    print(f"same loss as {commit[:7]}: every step of every recipe, bit by bit")
    return 0


def first_difference(before: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    """Recipe, step and field of the first difference; empty where all bits are the same.

    A field that only `now` has is not a difference: later commits may log more.
    """
    if before["inputs"] != now["inputs"]:
        return "the base model or the data of the trainings is another one"
    trainings, trained = before["recipes"], now["recipes"]
    assert isinstance(trainings, dict) and isinstance(trained, dict)
    for name in (*trainings, *(other for other in trained if other not in trainings)):
        if name not in trainings or name not in trained:
            return f"{name}: the recipe was trained on one side only; store values with --keep --base COMMIT"
        found = _differs(trainings[name], trained[name])
        if found:
            return f"{name}, {found}"
    return ""


def _differs(before: Json, now: Json) -> str:
    """The first difference between two trainings of one recipe."""
    assert isinstance(before, dict) and isinstance(now, dict)
    for kind in ("steps", "evaluations"):
        old, new = before[kind], now[kind]
        assert isinstance(old, list) and isinstance(new, list)
        for one, other in zip(old, new, strict=False):
            assert isinstance(one, dict) and isinstance(other, dict)
            field = next((key for key in one if not _same(one[key], other.get(key))), None)
            if field is not None:
                stage = f"stage {one['stage']} " if "stage" in one else ""
                noun = "step" if kind == "steps" else "evaluation after step"
                return f"{stage}{noun} {one['step']}: {field} is {other.get(field)}, was {one[field]}"
        if len(old) != len(new):
            return f"{kind}: {len(new)}, were {len(old)}"
    if before["weights"] != now["weights"]:
        return "the losses are the same, the weights of the finished model are not"
    return ""


def _same(one: Json, other: Json) -> bool:
    """Whether two numbers have the same bits: -0.0 is not 0.0, NaN is NaN."""
    if isinstance(one, float) and isinstance(other, float):
        return one.hex() == other.hex()
    return type(one) is type(other) and one == other


def changed_environment(before: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    """The first version or processor that is another one, or empty."""
    old, new = before["environment"], now["environment"]
    assert isinstance(old, dict) and isinstance(new, dict)
    return next((f"{key} {old[key]}, here it is {new.get(key)}" for key in old if old[key] != new.get(key)), "")


def commit_hash(name: str) -> str:
    """The full hash of a commit.

    Raises:
        FailedError: there is none of this name, as in a shallow clone.
    """
    done = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise FailedError(f"no commit {name!r} in {ROOT}; fetch the whole history with: git fetch --unshallow")
    return done.stdout.strip()


def values_of_commit(commit: str) -> Tree:
    """Train with a commit's files, taken out of git into a temporary folder."""
    with checkout(commit) as tree:
        return values_of_tree(tree, commit[:7])


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A temporary folder with a commit's files. Unlike a worktree it leaves nothing behind in git when it is killed."""
    with tempfile.TemporaryDirectory(prefix="same-loss-") as folder:
        archive = Path(folder, "tree.tar")
        subprocess.run(["git", "-C", str(ROOT), "archive", "--output", str(archive), commit], check=True)
        with tarfile.open(archive) as files:
            files.extractall(Path(folder, "tree"), filter="tar")
        yield Path(folder, "tree")


def values_of_tree(tree: Path, label: str = "this checkout") -> Tree:
    """Train all recipes with the code below `tree`, in a process and a temporary folder of their own.

    Raises:
        FailedError: a training fails; its output was shown.
    """
    print(f"training with {label}", file=sys.stderr, flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="same-loss-") as folder:
        result = Path(folder, "result.json")
        # No variable of this machine's user may change the trainings, and none of his outputs is touched.
        own = {key: value for key, value in os.environ.items() if not key.startswith("GEMMA4VEC_")}
        own |= {
            "PYTHONPATH": str(tree / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GEMMA4VEC_HOME": str(Path(folder, "home")),
            "GEMMA4VEC_CACHE": str(Path(folder, "cache")),
        }
        done = subprocess.run([sys.executable, str(WORKER), str(tree), str(result)], cwd=folder, env=own)
        if done.returncode or not result.is_file():
            raise FailedError(f"the trainings with {label} failed (exit code {done.returncode})")
        values: Tree = json.loads(result.read_text(encoding="utf-8"))
    print(f"  {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return values


if __name__ == "__main__":
    sys.exit(main())
