"""Find the results that the arguments of `gemma4vec compare` name, all on the same suite.

An argument is the folder of one result, a folder of results by suite (`RUN/evals/bm25`), a run folder or run id (for
its trained model), or the name of a model below `HOME/evals`, such as `bm25`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.evaluation.results.result import METRICS_FILE
from gemma4vec.evaluation.scoring.ranking import Ranker
from gemma4vec.files import sha256_text
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.overview import all_runs
from gemma4vec.ledger.run_folder import MANIFEST, find_run, slug
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.text.text_embedder import TextEmbedder

TRAINED = "trained"


def find_result_pair(a: str, b: str, home: Path, suite: str | None = None) -> tuple[Path, Path]:
    """Find the folders of the two results that `a` and `b` name.

    A bare name such as `bm25` is looked up in the other argument's run first, then below `home`.

    Raises:
        InputError: nothing matches, or several suites match and `suite` is not given.
    """
    folders = find_results([a, b], home, suite)
    return folders[0], folders[1]


def find_results(specs: Sequence[str], home: Path, suite: str | None = None) -> list[Path]:
    """Find the folders of the results that `specs` name, on one suite; bare names: first in the others' runs.

    Raises:
        InputError: nothing matches, or several suites match and `suite` is not given.
    """
    results = [_results(spec, home, _others(specs, spec)) for spec in specs]
    if suite is not None:
        return [_of_suite(found, spec, suite) for found, spec in zip(results, specs, strict=True)]
    if all(len(found) == 1 for found in results):
        return [next(iter(found.values())) for found in results]
    common = sorted(set.intersection(*(set(found) for found in results)))
    which = " and ".join(specs) if len(specs) < 4 else f"these {len(specs)}"
    if not common:
        raise InputError(
            f"{which} have no suite in common ({' against '.join(_names(found) for found in results[:4])}); "
            "evaluate all on one suite with gemma4vec eval"
        )
    if len(common) > 1:
        raise InputError(f"{which} have several suites in common; choose one with --suite: {', '.join(common)}")
    return [found[common[0]] for found in results]


def runs_of_recipe(recipe: str, home: Path) -> list[str]:
    """Find the folders of a recipe's evaluated runs in the ledger, by its id or the beginning of it.

    Raises:
        InputError: no recipe or several recipes match.
    """
    with open_ledger(home, tolerant=True) as ledger:
        known = [run for run in all_runs(ledger) if str(run["recipe_id"]).startswith(recipe) and run["scores"]]
    ids = sorted({str(run["recipe_id"]) for run in known})
    if len(ids) > 1:
        raise InputError(f"'recipe:{recipe}' matches {len(ids)} recipes: {', '.join(ids[:5])}; give more of the id")
    found = [run["path"] for run in known if not run["deleted"]]
    if not found:
        raise InputError(f"the ledger has no evaluated run of a recipe '{recipe}'; list them with: gemma4vec runs")
    return found


def _others(specs: Sequence[str], spec: str) -> list[str]:
    return [other for other in specs if other != spec]


def _results(spec: str, home: Path, others: Sequence[str]) -> dict[str, Path]:
    """Return suite -> result folder for what `spec` names."""
    folder = _folder(spec, home, others)
    if (folder / METRICS_FILE).is_file():
        return {folder.name: folder}
    if (folder / MANIFEST).is_file():
        results = results_by_suite(folder / "evals" / TRAINED)
        if not results:
            others = sorted(path.name for path in (folder / "evals").glob("*") if results_by_suite(path))
            known = f"; it has {', '.join(str(folder / 'evals' / name) for name in others)}" if others else ""
            raise InputError(
                f"the run {folder} has no evaluation of its trained model{known}; make one with gemma4vec eval"
            )
        return results
    results = results_by_suite(folder)
    if not results:
        raise InputError(f"no evaluation results in {folder}; make some with: gemma4vec eval MODEL --suite DIR")
    return results


def _folder(spec: str, home: Path, others: Sequence[str]) -> Path:
    """Return the folder that `spec` names."""
    if Path(spec).is_dir():
        return Path(spec)
    candidates = [home / "evals" / spec, home / "evals" / slug(spec)]
    runs = [run for other in others if (run := _run_of(other, home)) is not None]
    candidates = [*(run / "evals" / spec for run in runs), *candidates]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    run = _run_of(spec, home)
    if run is None:
        raise InputError(
            f"no result '{spec}': it is neither a folder, nor a run, nor below {home / 'evals'}; "
            f"make it with: gemma4vec eval {spec} --suite DIR"
        )
    return run


def _run_of(spec: str, home: Path) -> Path | None:
    """Return the run folder that `spec` is, lies in or names; None if there is none."""
    path = Path(spec)
    if path.is_dir():
        return next((folder for folder in (path, *path.resolve().parents) if _is_run(folder)), None)
    try:
        return find_run(spec, home).path
    except InputError:
        return None  # the caller lists everything that was tried


def _is_run(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and (folder / "evals").is_dir()


def results_by_suite(folder: Path) -> dict[str, Path]:
    """Return suite -> folder for the results directly below `folder`."""
    return {metrics.parent.name: metrics.parent for metrics in sorted(folder.glob(f"*/{METRICS_FILE}"))}


def free_folder(
    model_folder: Path, suite: str, model: TextEmbedder | Ranker, *, replaces_other_weights: bool = False
) -> Path:
    """Return `model_folder/suite`, or `model_folder-<6 hex>/suite` if the first holds a result of another model.

    The same model with the same settings replaces its own result. With `replaces_other_weights` only the settings
    are compared: a run's model stays the run's after further training.
    """
    wanted: dict[str, Any] = {"model": model.describe()}
    if not replaces_other_weights:
        wanted["model_fingerprint"] = model.fingerprint
    folder = model_folder / suite
    if not (folder / METRICS_FILE).is_file():
        return folder
    # Through JSON, as the stored settings.
    if json.loads(json.dumps(wanted)) == {name: _stored_settings(folder).get(name) for name in wanted}:
        return folder
    mark = sha256_text(json.dumps(wanted, sort_keys=True))[:6]
    return model_folder.with_name(f"{model_folder.name}-{mark}") / suite


def _stored_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of the result in `folder`; empty if it is damaged, so that it is never replaced."""
    try:
        return dict(load_own_json(folder / METRICS_FILE)["settings"])
    except (ValueError, TypeError, KeyError):
        return {}


def _of_suite(results: dict[str, Path], spec: str, suite: str) -> Path:
    """Return the result on `suite`."""
    if suite not in results:
        raise InputError(f"{spec} has no result on '{suite}'; it has {_names(results)}")
    return results[suite]


def _names(results: dict[str, Path]) -> str:
    return ", ".join(sorted(results))
