"""Rows to read a matrix against: BM25, and each control's base as it is before any training.

They are no recipes: nothing is chosen by them and nothing is compared with them. Their results lie in
`references/<name>/<suite>/` of the matrix's folder.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.evaluation.comparison.find_results import results_by_suite
from gemma4vec.evaluation.results.result import METRICS_FILE, Result, load_result
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.ranking import Ranker
from gemma4vec.ledger.run_folder import slug
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.pipeline.matrix.paired_scores import query_scores
from gemma4vec.pipeline.matrix.plan import Plan
from gemma4vec.pipeline.matrix.state import MatrixFolder
from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

FOLDER = "references"


@dataclass(frozen=True)
class ReferenceJob:
    """What a reference's process is to do.

    Attributes:
        name: what tables call it.
        base: evaluated untrained; None: BM25.
        max_tokens: of each text.
        out: where results go, a folder a suite.
        suites: folders of suites.
        look_again: as of a `CellJob`; it counts where the base is itself a run's model.
    """

    name: str
    base: str | None
    max_tokens: int
    out: str
    suites: list[str]
    look_again: Mapping[str, str] = field(default_factory=dict)


def open_references(
    plan: Plan, folder: MatrixFolder, suites: Sequence[Path], look_again: Mapping[str, str]
) -> list[ReferenceJob]:
    """What is not evaluated on every suite yet."""
    jobs = [
        ReferenceJob(
            name, base, max_tokens, str(folder.path / FOLDER / slug(name)), [str(path) for path in suites], look_again
        )
        for name, base, max_tokens in _references(plan)
    ]
    return [job for job in jobs if any(not _done(job, path) for path in job.suites)]


def run_reference(job: ReferenceJob) -> None:
    """Evaluate a reference on the suites where it has no result yet.

    Raises:
        InputError, WorkError: as opening and evaluating a model.
    """
    model: TextEmbedder | Ranker = Bm25Model()
    if job.base is not None:
        model = Embedder.load(job.base, max_tokens=job.max_tokens)
    for path in job.suites:
        if not _done(job, path):
            suite = load_suite(Path(path))
            words = job.look_again.get(path, "")
            result = evaluate(model, suite, Path(job.out) / suite.name, name=job.name, look_again=words)
            logger.info(f"{suite.name}: nDCG@10 {result.mean['ndcg@10']:.4f}")


def reference_rows(plan: Plan, folder: MatrixFolder, metric: str) -> list[dict[str, Any]]:
    """Rows of the final table, for those that have all their results; fields as a recipe's row."""
    dev_names = {sample["name"] for sample in folder.suite_list("dev")}
    names = dev_names | {sample["name"] for sample in folder.suite_list("final")}
    rows: list[dict[str, Any]] = []
    for name, base, _ in _references(plan):
        results = _results(folder.path / FOLDER / slug(name))
        if set(results) < names:
            continue
        final = [results[suite] for suite in sorted(names - dev_names)]
        rows.append(
            {
                "variant": name,
                "recipe": None,
                "base": base,
                "status": "reference",
                "learning_rate": None,
                "seeds": [],
                "dev": _interval([results[suite] for suite in sorted(dev_names)], metric),
                "final": {result.suite: _interval([result], metric) for result in final},
                "final_mean": _interval(final, metric),
                "difference": None,
                "spread": None,
            }
        )
    return rows


def seconds_of(folder: MatrixFolder) -> float:
    """What evaluating the references took."""
    files = (folder.path / FOLDER).glob(f"*/*/{METRICS_FILE}")
    return sum(float(json.loads(file.read_text(encoding="utf-8"))["settings"]["seconds"]["total"]) for file in files)


def _references(plan: Plan) -> list[tuple[str, str | None, int]]:
    """(name, base, longest text) of each; a base that several controls share is one."""
    found: list[tuple[str, str | None, int]] = []
    controls = [plan.recipe(plan.grid(name)[0]).model for name in dict.fromkeys(plan.controls.values())]
    bases = {model.base: model.max_tokens for model in controls}
    if "bm25" in plan.matrix.references:
        found.append(("bm25", None, 0))
    if "untrained" in plan.matrix.references:
        for base, max_tokens in bases.items():
            found.append(("untrained" if len(bases) == 1 else f"untrained {base}", base, max_tokens))
    return found


def _results(folder: Path) -> dict[str, Result]:
    return {name: load_result(path) for name, path in results_by_suite(folder).items()} if folder.is_dir() else {}


def _done(job: ReferenceJob, suite: str) -> bool:
    return (Path(job.out) / load_suite(Path(suite)).name / METRICS_FILE).is_file()


def _interval(results: Sequence[Result], metric: str) -> dict[str, Any]:
    interval = query_scores([results], metric).interval
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "queries": interval.n}
