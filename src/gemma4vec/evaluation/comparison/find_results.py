"""From what a person types after `gemma4vec compare` to two results on the same suite.

An argument may be the folder of one result, a folder of results by suite (`RUN/evals/bm25`), a run folder or run id
(then its trained model), or the name of a model below `HOME/evals`, such as `bm25`.
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
from gemma4vec.text.text_embedder import TextEmbedder

TRAINED = "trained"


def locate_pair(a: str, b: str, home: Path, suite: str | None = None) -> tuple[Path, Path]:
    """Folders of the two results that `a` and `b` mean.

    A bare name such as `bm25` first means the one that the other argument's run has, then the one below `home`.

    Raises:
        InputError: nothing fits, or several suites do and `suite` does not say which.
    """
    folders = locate_all([a, b], home, suite)
    return folders[0], folders[1]


def locate_all(specs: Sequence[str], home: Path, suite: str | None = None) -> list[Path]:
    """Folders of the results that `specs` mean, all on one suite; a bare name is first looked for in the others' runs.

    Raises:
        InputError: nothing fits, or several suites do and `suite` does not say which.
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
    """Folders of the evaluated runs of a recipe (its id or the beginning of it), as the ledger knows them.

    Raises:
        InputError: none, or several recipes fit.
    """
    with open_ledger(home, tolerant=True) as ledger:
        known = [run for run in all_runs(ledger) if str(run["recipe_id"]).startswith(recipe) and run["scores"]]
    ids = sorted({str(run["recipe_id"]) for run in known})
    if len(ids) > 1:
        raise InputError(f"'recipe:{recipe}' fits {len(ids)} recipes: {', '.join(ids[:5])}; say more of it")
    found = [run["path"] for run in known if not run["deleted"]]
    if not found:
        raise InputError(f"the ledger knows no evaluated run of a recipe '{recipe}'; list them with: gemma4vec runs")
    return found


def _others(specs: Sequence[str], spec: str) -> list[str]:
    return [other for other in specs if other != spec]


def _results(spec: str, home: Path, beside: Sequence[str]) -> dict[str, Path]:
    """Suite -> result folder for what `spec` means."""
    folder = _folder(spec, home, beside)
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


def _folder(spec: str, home: Path, beside: Sequence[str]) -> Path:
    """The folder that `spec` means."""
    if Path(spec).is_dir():
        return Path(spec)
    candidates = [home / "evals" / spec, home / "evals" / slug(spec)]
    runs = [run for other in beside if (run := _run_of(other, home)) is not None]
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
    """The run folder that `spec` is, lies in or names; None where there is none."""
    path = Path(spec)
    if path.is_dir():
        return next((folder for folder in (path, *path.resolve().parents) if _is_run(folder)), None)
    try:
        return find_run(spec, home).path
    except InputError:
        return None  # the caller names everything that was tried


def _is_run(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and (folder / "evals").is_dir()


def results_by_suite(folder: Path) -> dict[str, Path]:
    """Suite -> folder, for the results that stand side by side in `folder`."""
    return {metrics.parent.name: metrics.parent for metrics in sorted(folder.glob(f"*/{METRICS_FILE}"))}


def free_folder(
    model_folder: Path, suite: str, model: TextEmbedder | Ranker, *, replaces_other_weights: bool = False
) -> Path:
    """`model_folder/suite`, or `model_folder-<6 hex>/suite` where the first holds another model's or other settings'.

    The same model with the same settings replaces its own result. With `replaces_other_weights` only the settings
    count: a run's model is the run's, also after it was trained further.
    """
    wanted: dict[str, Any] = {"model": model.describe()}
    if not replaces_other_weights:
        wanted["model_fingerprint"] = model.fingerprint
    folder = model_folder / suite
    if not (folder / METRICS_FILE).is_file():
        return folder
    # Through JSON, since that is what the stored settings went through.
    if json.loads(json.dumps(wanted)) == {name: _stored_settings(folder).get(name) for name in wanted}:
        return folder
    mark = sha256_text(json.dumps(wanted, sort_keys=True))[:6]
    return model_folder.with_name(f"{model_folder.name}-{mark}") / suite


def _stored_settings(folder: Path) -> dict[str, Any]:
    """Settings of the result in `folder`; empty where it is damaged, so that it is left for its owner to see."""
    try:
        return dict(json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))["settings"])
    except (ValueError, TypeError, KeyError):
        return {}


def _of_suite(results: dict[str, Path], spec: str, suite: str) -> Path:
    """The result on `suite`."""
    if suite not in results:
        raise InputError(f"{spec} has no result on '{suite}'; it has {_names(results)}")
    return results[suite]


def _names(results: dict[str, Path]) -> str:
    return ", ".join(sorted(results))
