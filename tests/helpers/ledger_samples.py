"""Runs and results as folders, as small as they can be."""

import json
from pathlib import Path
from typing import Any

from gemma4vec.files import write_json
from gemma4vec.ledger.ledger import new_id, now
from gemma4vec.ledger.recording import record_evaluation, record_look, record_run
from gemma4vec.ledger.records import owner_ids
from gemma4vec.ledger.run_folder import RunFolder

RECIPE = "name: tiny\nmodel:\n  base: bundled:x\n  readout: mean\nstages: []\n"


def make_run(home: Path, name: str = "tiny", *, recipe_id: str = "abc", **manifest: Any) -> RunFolder:
    """A recorded run that is finished."""
    text = manifest.pop("recipe_text", RECIPE)
    run = RunFolder.create(home, name, text, recipe_id=recipe_id, status="started", **{"hypothesis": "", **manifest})
    record_run(run)
    run.event("finished", seconds=2.0, tokens=100, peak_memory_bytes=2**30, exported={"checkpoint": "last", "step": 3})
    run.update_manifest(status="finished")
    record_run(run)
    return run


def look(
    folder: Path | None,
    model: str,
    fingerprint: str,
    *,
    suite: str = "s",
    contents: str = "f" * 64,
    value: float = 0.5,
    run: RunFolder | None = None,
    max_tokens: int | None = None,
) -> None:
    """What `evaluate` records of a result, with and without a folder."""
    settings = {
        "model": {"max_tokens": max_tokens},
        "model_fingerprint": fingerprint,
        "suite": {"fingerprint": contents, "role": "dev"},
        "created": now(),
        "look": new_id(),
        "run": owner_ids(model, run),
    }
    record_look(model, suite, settings, ["ndcg@10", "map"])
    if folder is not None:
        mean = {"ndcg@10": value, "map": value / 2}
        write_json(folder / "metrics.json", {"model": model, "suite": suite, "mean": mean, "settings": settings})
        record_evaluation(folder)


def plain(value: Any) -> Any:
    """Through JSON, as stored."""
    return json.loads(json.dumps(value))
