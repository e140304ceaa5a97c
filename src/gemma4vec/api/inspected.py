"""Models and suites that an inspection names, opened again from its words."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.evaluation.results.result import OpenedAs
    from gemma4vec.inspection.inspected import Subject

BM25 = "bm25"


def check_model(spec: str) -> None:
    """Refuse a model that does not exist, before any weights are loaded.

    Raises:
        InputError: there is none of this name, or it is a run without a finished model.
    """
    if spec == BM25:
        return
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import named_run
    from gemma4vec.model.inference.load import find_model_folder

    run = named_run(spec, home())
    find_model_folder(str(run.path) if run is not None else spec)


def open_subject(how: Mapping[str, Any]) -> "Subject":
    """A model from `spec`, `dtype` and `max_tokens`."""
    from gemma4vec.api.scoring import open_scorer, run_of_model
    from gemma4vec.inspection.inspected import Subject

    spec, dtype, limit = str(how["spec"]), how.get("dtype"), how.get("max_tokens")
    run = None if spec == BM25 else run_of_model(spec)
    return Subject(open_scorer(spec, dtype, limit), spec, dtype, limit, run)


def suite_of_results(model: str) -> "OpenedAs":
    """The words that open the retrieval suite for development that a run was evaluated on.

    Raises:
        InputError: the model is no run; no result of the run says where its suite is, or results on several suites do.
    """
    from gemma4vec.evaluation.comparison.find_results import TRAINED, results_by_suite
    from gemma4vec.evaluation.results.result import load_result
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import named_run

    run = None if model == BM25 else named_run(model, home())
    folders = {} if run is None else results_by_suite(run.path / "evals" / TRAINED)
    results = [one for one in map(load_result, folders.values()) if one.kind == "retrieval" and len(one.tasks) == 1]
    dev = [one for one in results if (one.settings.get("suite") or {}).get("role") != "final"]
    found = {one.suite: how for one in dev if (how := one.opened) is not None}
    if len(found) != 1:
        known = f"{model} was evaluated on {', '.join(sorted(found))}" if found else f"no result of {model} names one"
        raise InputError(f"--suite is missing, and {known}; name a dev suite: --suite DEV")
    return next(iter(found.values()))
