"""Kill runs of two stages, adaptation and contrast, and go on with them: run as `python killed_stages.py FOLDER`.

As `killed_runs`, which says how; it writes `FOLDER/outcomes.json`.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from killed_runs import at_call, child, kill

from gemma4vec.cli.main import execute
from gemma4vec.ledger.run_folder import list_runs
from gemma4vec.training.engine import checkpoint
from gemma4vec.training.tasks import contrastive as contrast
from gemma4vec.training.tasks import masked_next_token

MOMENTS: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "in adaptation": lambda: at_call(3, masked_next_token.MaskedNextTokenTask, "loss", kill),
    "between the stages": lambda: at_call(1, contrast.ContrastTask, "loss", kill),
    "in contrast": lambda: at_call(3, contrast.ContrastTask, "loss", kill),
    "while contrast's first checkpoint is written": lambda: at_call(5, checkpoint, "write_weights", kill, after=False),
}


# Near to others: `make slow` runs them.
SLOW = ("in adaptation", "while contrast's first checkpoint is written")


def main(folder: Path, asked: list[str]) -> None:
    torch.set_num_threads(1)
    outcomes: dict[str, Any] = {}
    for number, (moment, arm) in enumerate({name: MOMENTS[name] for name in ("", *asked)}.items()):
        out = folder / f"runs{number}"

        def first(arm: Callable[[], None] = arm, out: Path = out) -> int:
            arm()
            return execute(["train", str(folder / "recipe.yaml"), "--out", str(out)])

        code = child(first, out.with_suffix(".first"))
        run = list_runs(out)[0].path
        kept = sorted(str(path.relative_to(run / "checkpoints")) for path in run.rglob("step-*"))
        again = (
            child(lambda run=run: execute(["train", "--resume", str(run)]), out.with_suffix(".again")) if moment else 0
        )  # type: ignore[misc]
        said = "".join(file.read_text() for file in sorted(folder.glob(f"runs{number}.*")))
        outcomes[moment] = {"run": str(run), "first": code, "kept": kept, "again": again, "said": said}
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
