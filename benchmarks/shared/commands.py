"""Commands of gemma4vec as a person would type them, in this process, and steps that are done once."""

import argparse
import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from benchmarks.shared.record import say
from gemma4vec.cli.main import execute
from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import write_json

REFUSED = 2  # the exit code of a refusal
Found = dict[str, Any]


class Done:
    """Steps that are finished, in one file; a step is done once for the same settings.

    Raises:
        InputError: the file is of other settings.
    """

    def __init__(self, file: Path, settings: Found):
        self.file = file
        self.settings = json.loads(json.dumps(settings))
        self.steps: Found = {}
        if file.is_file():
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["settings"] != self.settings:
                raise InputError(f"{file.parent} is of other settings; choose another --out")
            self.steps = kept["steps"]

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        """What a step found, or what `do` finds now, which is kept."""
        if name not in self.steps:
            say(f"{name} ...")
            found = do()
            self.steps[name] = json.loads(json.dumps(found))
            write_json(self.file, {"settings": self.settings, "steps": self.steps})
        return self.steps[name]


def small_recipe(name: str, data: list[Found], arguments: argparse.Namespace, max_tokens: int) -> Found:
    """A recipe for a busy machine: the first layers of a small base, short texts, a budget in steps.

    Of `arguments` it takes `base`, `layers`, `rows` (of a batch) and `steps`.
    """
    return {
        "name": name,
        "model": {
            "base": arguments.base,
            "layers": arguments.layers,
            "attention": "causal",
            "readout": {"name": "last_token"},
            "prompts": "retrieval",
            "max_tokens": max_tokens,
            "dtype": "fp32",
            "lora": {"rank": 16, "alpha": 32},
        },
        "stages": [
            {
                "data": data,
                "task": {"temperature": 0.05, "hard_negatives": 0},
                "batch": {"rows": arguments.rows, "query_tokens": 32, "document_tokens": 48},
                "layout": {"row_tokens": 128, "tokens_per_forward": 2048, "compile": False},
                "optimizer": {"learning_rate": 1.0e-3, "warmup_steps": 4, "schedule": "linear"},
                "budget": {"steps": arguments.steps},
                "evaluation": {"every_steps": None},
            }
        ],
    }


def command(*words: str) -> Found:
    """What a command prints as JSON.

    Raises:
        InputError: it was refused. WorkError: it failed, or was stopped.
    """
    found = ask(*words)
    if "refused" in found:
        raise InputError(f"gemma4vec {words[0]}: {found['refused']}")
    return found


def ask(*words: str) -> Found:
    """What a command prints as JSON; of a refusal its line, as `refused`.

    Raises:
        WorkError: it failed, or was stopped.
    """
    printed, said = io.StringIO(), Tee(sys.stderr)
    with redirect_stdout(printed), redirect_stderr(said):
        code = execute([*words, "--json"])
    if code == REFUSED:
        return {"refused": said.last_error()}
    if code:
        raise WorkError(f"gemma4vec {words[0]} ended with exit code {code}; the same command goes on")
    found: Found = json.loads(printed.getvalue())
    return found


class Tee(io.TextIOBase):
    """Passes on what is written, and remembers it."""

    def __init__(self, to: TextIO):
        self.to = to
        self.lines = ""

    def write(self, text: str) -> int:
        self.lines += text
        return self.to.write(text)

    def flush(self) -> None:
        self.to.flush()

    def last_error(self) -> str:
        """The last line that says "error", without that word."""
        found = [line for line in self.lines.splitlines() if line.startswith("error: ")]
        return found[-1].removeprefix("error: ") if found else ""
