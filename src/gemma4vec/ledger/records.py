"""Records of a run and of an evaluation, read from their folders, at once or when the index is rebuilt.

A record's id is a hash of its contents, so reading a folder twice makes the same record, which is added once. A look
has a random id, made and stored with its scores.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text
from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.run_folder import MANIFEST, RECIPE, RunFolder, replace_nonfinite
from gemma4vec.reading.json_values import load_foreign_json
from gemma4vec.reading.yaml_values import YamlError, loads_yaml
from gemma4vec.recipe.renamed import current_names

METRICS, DECISION = "metrics.json", "decision.json"
BASELINES = {"bm25", "untrained"}  # evaluated within a run, but not made by its recipe
SHARE = "share"  # result name of a model at a share of its budget, for a matrix's stop rule
CHECKPOINT = "checkpoint"  # prefix of result names of a run's checkpoints
_PRUNED = {"checkpoints", "model", "index", "node_modules", "__pycache__"}


def run_record(run: RunFolder) -> Record:
    """Return the record of a run in its current state.

    Raises:
        InputError: not a run folder, or a damaged one.
    """
    manifest, events = run.manifest, run.events()
    environment = manifest.get("environment") or {}
    finished = next((event for event in reversed(events) if event.get("event") == "finished"), {})
    measured = next((event for event in reversed(events) if event.get("event") == "evaluation"), {})
    contents: dict[str, Any] = {key: manifest[key] for key in ("made_from", "inherited", "weights") if key in manifest}
    body: dict[str, Any] = {
        "run_id": str(manifest["run_id"]),
        "name": manifest.get("name"),
        "recipe_id": manifest.get("recipe_id"),
        "created": manifest.get("created"),
        "status": manifest.get("status"),
        "seed": manifest.get("seed"),
        "hypothesis": manifest.get("hypothesis") or "",
        "path": str(run.path.resolve()),
        "parents": manifest.get("parents") or [],
        "data": manifest.get("data") or {},
        "contamination": manifest.get("contamination"),
        "base": manifest.get("base"),
        **contents,
        "code": {"git": environment.get("git"), "versions": environment.get("versions")},
        "machine": environment.get("machine"),
        "cost": {key: finished[key] for key in ("seconds", "tokens", "peak_memory_bytes") if key in finished},
        "results": {
            "exported": finished.get("exported"),
            "last_evaluation": {k: v for k, v in measured.items() if k not in ("event", "time")} or None,
            **({"ended": manifest["ended"]} if "ended" in manifest else {}),
        },
        "recipe": run.recipe_text if (run.path / RECIPE).is_file() else None,
    }
    last = max((float(event.get("time") or 0.0) for event in events), default=0.0)
    return Record(f"run-{_hashed(body, last)}", "run", _later(manifest.get("created"), last), body)


def look_record(model: str, suite: str, settings: Mapping[str, Any], metrics: Sequence[str]) -> Record:
    """Return the record of one look: model, suite contents, metrics, time.

    Args:
        model: name of the model in the result.
        settings: of the result; "look" is the look's id, "run" the model's run and recipe, "scores" a hash of the
            result (`evaluation.results.result.Result.digest`), "by" the command that scored, if not `eval`.
        metrics: names of the metrics that were seen.
    """
    contents, owner = settings.get("suite") or {}, settings.get("run") or {}
    body = {
        "model": model,
        "suite": suite,
        "suite_fingerprint": contents.get("fingerprint") or suite,
        "role": contents.get("role"),
        "metrics": list(metrics),
        "model_fingerprint": settings.get("model_fingerprint") or model,
        "run_id": owner.get("run_id"),
        "recipe_id": owner.get("recipe_id"),
    }
    body |= {key: settings[key] for key in ("look_again", "model_weights", "scores", "by") if settings.get(key)}
    time = str(settings.get("created") or "")
    return Record(f"look-{settings.get('look') or _hashed(body, time)}", "look", time, body)


def evaluation_record(folder: Path) -> tuple[Record, Record]:
    """The look and the evaluation that a result folder is.

    Args:
        folder: with metrics.json.

    Raises:
        InputError: metrics.json is damaged.
    """
    file = folder / METRICS
    try:
        summary = load_foreign_json(file)
        settings = dict(summary.get("settings") or {})
        for part in ("suite", "run"):
            if not isinstance(settings.get(part) or {}, dict):
                raise TypeError(f"settings.{part} is not a mapping")
        mean = {str(metric): float(value) for metric, value in summary["mean"].items()}
        model, suite = str(summary["model"]), str(summary["suite"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({' '.join(str(error).split())}); evaluate again") from error
    settings.setdefault("run", owner_ids(model, find_enclosing_run(folder)))  # results from before looks were recorded
    seen = look_record(model, suite, settings, list(mean))
    body = {key: value for key, value in seen.body.items() if key != "metrics"}
    body |= {"look": seen.id, "folder": str(folder.resolve()), "mean": mean, "settings": settings}
    return seen, Record(f"evaluation-{seen.id}", "evaluation", seen.time, body)


def owner_ids(model: str, run: RunFolder | None) -> dict[str, str | None]:
    """Return the ids of the run and recipe of an evaluated model; a baseline has a run, but no recipe."""
    if run is None:
        return {"run_id": None, "recipe_id": None}
    manifest = run.manifest
    recipe = None if model in BASELINES else manifest.get("recipe_id")
    return {"run_id": str(manifest["run_id"]), "recipe_id": recipe}


def is_own_model(model: str) -> bool:
    """Return whether a run's result is that of its finished model, not of a baseline or checkpoint."""
    return model not in BASELINES and model != SHARE and not model.startswith(CHECKPOINT)


def find_enclosing_run(folder: Path) -> RunFolder | None:
    """Return the run whose folder is `folder` or one of its first four parents; None if there is none."""
    for place in [folder.resolve(), *folder.resolve().parents][:5]:
        if (place / MANIFEST).is_file():
            with contextlib.suppress(InputError):
                return RunFolder.open(place)
    return None


def decision_record(folder: Path) -> Record | None:
    """Return the decision in a run folder; None if it has none, or a damaged one."""
    try:
        read = load_foreign_json(folder / DECISION)
        return Record(str(read["id"]), "decision", str(read["time"]), dict(read["body"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def find_parents(recipe: Any) -> list[str]:
    """Return the ids of the runs that a recipe builds on: those whose folders its paths lie in."""
    found = set()
    for text in _strings(recipe):
        path = Path(text).expanduser()
        with contextlib.suppress(OSError, ValueError):  # a text that cannot be a path
            if ("/" in text or path.is_dir()) and path.exists():
                run = find_enclosing_run(path)
                found |= {run.run_id} if run is not None else set()
    return sorted(found)


def run_folders(root: Path) -> Iterator[RunFolder]:
    """Yield every run at or below `root`, in the order of paths."""
    for folder in _folders(root):
        if (folder / MANIFEST).is_file():
            with contextlib.suppress(InputError):
                yield RunFolder.open(folder)


def evaluation_folders(root: Path) -> Iterator[Path]:
    """Yield every folder at or below `root` that holds a result."""
    yield from (folder for folder in _folders(root) if (folder / METRICS).is_file())


def _folders(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        return
    yield root
    for child in sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink()):
        # A run's large folders hold no results.
        if child.name not in _PRUNED and not child.name.startswith("."):
            yield from _folders(child)


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    for item in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ():
        yield from _strings(item)


def recipe_tree(text: str | None) -> dict[str, Any]:
    """Return a recipe's YAML as a tree, with today's names of keys; empty if it is no recipe."""
    try:
        tree = loads_yaml(text or "")
    except YamlError:
        return {}
    return current_names(tree, "recipe", log=False) if isinstance(tree, dict) else {}


def _hashed(*parts: object) -> str:
    return sha256_text(json.dumps(replace_nonfinite(parts), sort_keys=True))[:16]


def _later(created: Any, seconds: float) -> str:
    """Return the later of a manifest's time and an event's, in the ledger's form."""
    event = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    return max(str(created), event) if isinstance(created, str) and re.match(r"\d{4}-", created) else event
