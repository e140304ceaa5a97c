"""Makes a place, runs inputs in it one after the other, and keeps what failed."""

import contextlib
import functools
import gc
import io
import json
import os
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from fuzzing import place
from fuzzing.inputs import Input
from fuzzing.judge import faults
from fuzzing.kinds import KINDS, Words
from fuzzing.maker import Maker, parts_of
from fuzzing.sandbox import Outcome, Sandbox, prepare_parent, set_environment

LIMIT_SECONDS = 60.0
PATIENCE = 4  # a busy machine is slow, not stuck: what took too long is tried once more with this multiple of the limit


class Failure(TypedDict):
    """An input that failed: its file in the folder of failures, its kind, the line of ours, what is wrong."""

    file: str
    kind: str
    where: str
    faults: list[str]


class Found(TypedDict):
    """What a run found: counts by kind and by `kind code`, the longest seconds by kind, the failures."""

    seed: int
    seconds: int
    inputs: dict[str, int]
    codes: dict[str, int]
    slowest: dict[str, float]
    failures: list[Failure]


class Worker:
    """One place and the process that forks a child for each input.

    Args:
        root: folder of the place; files of failures name it, so that the same root reads them.
        names: kinds.
        kept: folder of the files of failures.
    """

    def __init__(self, root: Path, names: Words, kept: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.sandbox, self.names, self.kept = Sandbox(root.resolve()), names, kept
        self.models = any(KINDS[name].models for name in names)
        say(f"making the place{' with models and runs' if self.models else ''}")
        place.make(self.sandbox, self.models)
        here = Path.cwd()
        os.chdir(self.sandbox.template)
        self.runs = place.runs()
        os.chdir(here)
        self._warm_up()
        prepare_parent()
        self.maker = Maker(self.sandbox, names, self.runs)

    def run(self, seed: int, numbers: Iterable[int], progress: Callable[[Found], object]) -> Found:
        """Run inputs; what fails is kept in a file of its own; `progress` sees the findings after each 200."""
        inputs, codes, started = Counter[str](), Counter[str](), time.monotonic()
        found: Found = {"seed": seed, "seconds": 0, "inputs": inputs, "codes": codes, "slowest": {}, "failures": []}
        for count, number in enumerate(numbers, 1):
            one = self.maker.make(seed, number)
            outcome, wrong = self.once(one)
            inputs[one.kind] += 1
            codes[f"{one.kind} {outcome.code}"] += 1
            found["slowest"][one.kind] = max(found["slowest"].get(one.kind, 0.0), round(outcome.seconds, 2))
            if wrong:
                file = self._keep(one, outcome, wrong)
                where = self._where(one, wrong)
                found["failures"].append({"file": file.name, "kind": one.kind, "where": where, "faults": wrong})
                say(f"{one.label} {one.kind}: {wrong[0][:160]}")
            found["seconds"] = round(time.monotonic() - started)
            if count % 200 == 0:
                progress(found)
                say(f"{count} inputs, {len(found['failures'])} failures, {found['seconds']} s")
        return found

    def once(self, one: Input) -> tuple[Outcome, list[str]]:
        """(what came of an input, what is wrong with it)."""
        for limit in (LIMIT_SECONDS, PATIENCE * LIMIT_SECONDS):
            self.sandbox.fresh(parts_of(one.kind, *(change.path for change in one.changes)))
            for change in one.changes:
                change.apply(self.sandbox.place)
            outcome = self.sandbox.run(lambda: command(one.words), one, limit)
            if not outcome.hung:
                break
        return outcome, faults(one, outcome)

    def _where(self, one: Input, wrong: list[str]) -> str:
        """Our innermost line in the traceback of an unexpected error, or the fault itself without its numbers."""
        if not any("unexpected" in fault for fault in wrong):
            return re.sub(r"\d+", "N", wrong[0])[:100]
        shown, _ = self.once(replace(one, words=("--traceback", *one.words), as_json=False))
        lines = re.findall(r'gemma4vec/(\S+\.py)", line (\d+), in (\w+)', shown.stderr.decode("utf-8", "replace"))
        error = re.search(r"unexpected (\w+)", " ".join(wrong))
        return f"{':'.join(lines[-1]) if lines else '?'} {error[1] if error else ''}"

    def _keep(self, one: Input, outcome: Outcome, wrong: list[str]) -> Path:
        self.kept.mkdir(parents=True, exist_ok=True)
        file = self.kept / f"{one.label.replace('/', '-')}.json"
        value = {
            "root": str(self.sandbox.root),
            "faults": wrong,
            "code": outcome.code,
            "stdout": outcome.stdout[-2000:].decode("utf-8", "replace"),
            "stderr": outcome.stderr[-4000:].decode("utf-8", "replace"),
            "input": one.to_json(),
        }
        file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        return file

    def _warm_up(self) -> None:
        """Run each command of each kind as it is, in this process: what it imports is there in every child.

        Raises:
            SystemExit: all commands of a kind fail on files that nobody has changed: its inputs would show nothing.
        """
        maker = Maker(self.sandbox, self.names, self.runs)
        before, here = dict(os.environ), Path.cwd()
        done, failed = set[Words](), []
        for name in self.names:
            for ways in maker.plain(name):
                if done & {words for words, _ in ways}:
                    continue
                said = ""
                for words, parts in ways:
                    os.chdir(here)
                    self.sandbox.fresh(parts)
                    set_environment(self.sandbox.environment())
                    os.chdir(self.sandbox.place)
                    code, said = _aloud(words)
                    if code == 0:
                        done.add(words)
                        break
                else:
                    failed.append(f"{name}: {' '.join(ways[-1][0])}: {said.strip().splitlines()[-1][:300]}")
            if not done & {words for ways in maker.plain(name) for words, _ in ways}:
                sys.exit("\n".join(["error: no command works on files as they should be", *failed]))
        os.chdir(here)
        set_environment(dict.fromkeys(os.environ))
        os.environ.update(before)
        for line in failed:
            say(f"note: fails on files as they should be: {line}")
        for cached in [found for found in gc.get_objects() if type(found) is functools._lru_cache_wrapper]:
            if (getattr(cached, "__module__", None) or "").startswith("gemma4vec"):
                cached.cache_clear()


def _aloud(words: Words) -> tuple[int, str]:
    """(exit code, output) of a command in this process."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        code = command(("--traceback", *words))
    return code, stream.getvalue()


def command(words: Words) -> int:
    """The exit code of a command; `@gguf FILE` is one that only this program has."""
    from gemma4vec.cli import main

    if "@gguf" not in words:
        return main.execute(list(words))
    from gemma4vec.model.bases.gguf_model import write_model_folder

    try:
        write_model_folder(Path(words[-1]), Path("unpacked"))
    except Exception as error:
        if "--traceback" in words:
            traceback.print_exc()
        line, code = main._explain(error)
        print(line, file=sys.stderr)
        return code
    return 0


def say(text: str) -> None:
    """A line for the person who waits."""
    print(text, file=sys.stderr, flush=True)
