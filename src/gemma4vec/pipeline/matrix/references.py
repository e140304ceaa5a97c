"""Reference rows of a matrix's table: BM25, and each control's untrained base.

They are not recipes: they guide no choice and no comparison. Their results are in `references/<name>/<suite>/` of the
matrix's folder.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.evaluation.comparison.find_results import results_by_suite
from gemma4vec.evaluation.results.marks import model_marks
from gemma4vec.evaluation.results.result import METRICS_FILE, Result, load_matching_result, load_result
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.ranking import Ranker
from gemma4vec.ledger.run_folder import slug
from gemma4vec.model.bases.weights import hash_weights
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.inference.load import find_model_folder
from gemma4vec.pipeline.matrix.paired_scores import average_query_scores
from gemma4vec.pipeline.matrix.plan import Plan
from gemma4vec.pipeline.matrix.state import MatrixFolder
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

FOLDER = "references"


@dataclass(frozen=True)
class ReferenceSpec:
    """The work of a reference's process.

    Attributes:
        name: name in tables.
        base: base to evaluate untrained; None: BM25.
        max_tokens: longest text, in tokens.
        out: folder of the results, one subfolder a suite.
        suites: folders of suites.
        look_again: as in `CellSpec`; needed if the base is itself a run's model.
    """

    name: str
    base: str | None
    max_tokens: int
    out: str
    suites: list[str]
    look_again: Mapping[str, str] = field(default_factory=dict)


def list_missing_references(
    plan: Plan, folder: MatrixFolder, suites: Sequence[Path], look_again: Mapping[str, str]
) -> list[ReferenceSpec]:
    """The references that lack a result on some suite."""
    specs = [
        ReferenceSpec(
            name, base, max_tokens, str(folder.path / FOLDER / slug(name)), [str(path) for path in suites], look_again
        )
        for name, base, max_tokens in _list_references(plan)
    ]
    return [spec for spec in specs if any(not has_result(spec, path) for path in spec.suites)]


def run_reference(spec: ReferenceSpec) -> None:
    """Evaluate a reference on the suites that it has no result for.

    Raises:
        InputError, WorkError: from loading and evaluating the model.
    """
    model: TextEmbedder | Ranker = Bm25Model()
    if spec.base is not None:
        model = Embedder.load(spec.base, max_tokens=spec.max_tokens)
    for path in spec.suites:
        if not has_result(spec, path):
            suite = load_suite(Path(path))
            words = spec.look_again.get(path, "")
            result = evaluate(model, suite, Path(spec.out) / suite.name, name=spec.name, look_again=words)
            logger.info(f"{suite.name}: nDCG@10 {result.mean['ndcg@10']:.4f}")


def list_reference_rows(plan: Plan, folder: MatrixFolder, metric: str) -> list[dict[str, Any]]:
    """Table rows of the references that have all results; same fields as a recipe's row."""
    dev_names = {sample["name"] for sample in folder.list_suites("dev")}
    names = dev_names | {sample["name"] for sample in folder.list_suites("final")}
    rows: list[dict[str, Any]] = []
    for name, base, _ in _list_references(plan):
        results = load_results(folder.path / FOLDER / slug(name))
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
                "dev": score_interval([results[suite] for suite in sorted(dev_names)], metric),
                "final": {result.suite: score_interval([result], metric) for result in final},
                "final_mean": score_interval(final, metric),
                "difference": None,
                "spread": None,
                "marks": [
                    f"{name}, {suite}: {mark}." for suite in sorted(names) for mark in model_marks(results[suite])
                ],
            }
        )
    return rows


def sum_reference_seconds(folder: MatrixFolder) -> float:
    """Total evaluation time of the references, in seconds."""
    files = (folder.path / FOLDER).glob(f"*/*/{METRICS_FILE}")
    return sum(float(load_own_json(file)["settings"]["seconds"]["total"]) for file in files)


def _list_references(plan: Plan) -> list[tuple[str, str | None, int]]:
    """(name, base, max_tokens) of each reference; controls that share a base share the reference."""
    found: list[tuple[str, str | None, int]] = []
    controls = [plan.recipe(plan.grid(name)[0]).model for name in dict.fromkeys(plan.controls.values())]
    bases = {model.base: model.max_tokens for model in controls}
    if "bm25" in plan.matrix.references:
        found.append(("bm25", None, 0))
    if "untrained" in plan.matrix.references:
        for base, max_tokens in bases.items():
            found.append(("untrained" if len(bases) == 1 else f"untrained {base}", base, max_tokens))
    return found


def load_results(folder: Path) -> dict[str, Result]:
    """The results of a reference, by suite."""
    return {name: load_result(path) for name, path in results_by_suite(folder).items()} if folder.is_dir() else {}


def has_result(spec: ReferenceSpec, suite: str) -> bool:
    """Return whether the reference is evaluated on the suite, with the weights that its base has now."""
    loaded = load_suite(Path(suite))
    local = spec.base is not None and Path(spec.base).expanduser().exists()
    weights = hash_weights(find_model_folder(str(spec.base))) if local else None
    return load_matching_result(Path(spec.out) / loaded.name, loaded.fingerprint, weights=weights) is not None


def score_interval(results: Sequence[Result], metric: str) -> dict[str, Any]:
    """One model's mean over suites, with its 95% interval over queries, as JSON values."""
    interval = average_query_scores([results], metric).interval
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "queries": interval.n}
