"""Models and suites that an inspection names, opened again from its words."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gemma4vec.data.suites.retrieval import RetrievalSuite
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


def open_retrieval_suite(how: Mapping[str, Any]) -> "RetrievalSuite":
    """A suite from `spec`, `task` and `mirror`."""
    from gemma4vec.evaluation.scoring.open_any_suite import open_any_suite
    from gemma4vec.inspection.inspected import require_retrieval

    mirror = how.get("mirror")
    return require_retrieval(open_any_suite(str(how["spec"]), mirror=Path(mirror) if mirror else None), how.get("task"))
