"""Quickstart: from nothing to a trained, evaluated, searchable model with one command.

Every step stores its result in the run folder and is skipped if the result exists, so a killed quickstart continues
where it stopped.
"""

import logging
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite, write_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.guards import check_allowed
from gemma4vec.evaluation.scoring.ranking import Ranker
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.suite_access import Viewer, may_see
from gemma4vec.machine.terminal import ProgressBar, bars_by_stage
from gemma4vec.model.bases.start import resolve_model
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.save.model_card import add_scores
from gemma4vec.pipeline.quickstart_data import (
    PUBLIC,
    FolderKind,
    documents_source,
    fit_to_folder,
    has_public_model,
    indexed_documents,
    is_indexed_now,
    name_test,
)
from gemma4vec.pipeline.write_questions import with_questions
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.report.content.headline import format_headline
from gemma4vec.report.content.run_data import MODELS, read_run
from gemma4vec.report.run_page import write_report
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.serving.search.sources import index_folder, open_index
from gemma4vec.text.text_embedder import TextEmbedder
from gemma4vec.training.early_compiler import prepare_compiler
from gemma4vec.training.outcome import record_outcome
from gemma4vec.training.prepare_run import CheckedInputs, check_inputs, prepare_run
from gemma4vec.training.run import Trainer, recipe_of, start_run

logger = logging.getLogger(__name__)

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Size:
    """Largest size of the test suite: a larger corpus is a harder test and takes longer to embed.

    None: 1,000 queries and 1,500 documents; all of both for a person's own queries.
    """

    queries: int | None = None
    documents: int | None = None

    def limits(self, recipe: Recipe) -> tuple[int | None, int | None]:
        """Largest numbers of queries and documents for the recipe's test; None: no limit."""
        source = documents_source(recipe)
        own = source is not None and source.queries is not None
        return self.queries or (None if own else 1000), self.documents or (None if own else 1500)


def quickstart_recipe(overrides: list[str], kind: FolderKind = "code") -> Recipe:
    """Load the shipped quickstart recipe, for code or for documents, with overrides."""
    name = "quickstart.yaml" if kind == "code" else "quickstart_documents.yaml"
    file = resources.files("gemma4vec.pipeline") / name
    return parse_recipe(file.read_text(encoding="utf-8"), name, overrides)


def start_quickstart(recipe: Recipe, size: Size, out: Path | None = None, questions: int = 0) -> dict[str, Any]:
    """Check base and data, make a run folder, and run all steps. Return what the command prints.

    Args:
        recipe: the run's.
        size: of the test.
        out: parent of the run folder; None: `files.home()`.
        questions: sections for which the base writes a question to train on.

    Raises:
        InputError, WorkError: as the steps; no run folder is made for inputs that cannot be used.
        KeyboardInterrupt: with the command that goes on.
    """
    clock = _Clock()
    if documents_source(recipe) is not None:
        resolve_model(recipe.model)  # a wrong name is refused before a large folder is read
        recipe = fit_to_folder(recipe)
    if questions:
        with clock.step("questions by the base"):
            recipe = with_questions(recipe, questions)
    checked = check_inputs(recipe, step=clock.step)
    prepare_compiler(recipe)
    run = start_run(recipe, out)
    logger.info(f"run folder: {run.path}")
    clock.begin(run)
    return _recorded(run, size, clock, checked)


def go_on_quickstart(run: RunFolder, size: Size) -> dict[str, Any]:
    """Run all steps that `run` lacks. Return what the command prints.

    Raises:
        InputError, WorkError: as the steps. Finished steps are stored; another call continues with the next one.
        KeyboardInterrupt: with the command that goes on.
    """
    logger.info(f"run folder: {run.path}")
    clock = _Clock()
    clock.begin(run)
    return _recorded(run, size, clock, None)


def _recorded(run: RunFolder, size: Size, clock: "_Clock", checked: CheckedInputs | None) -> dict[str, Any]:
    try:
        with record_outcome(run):
            return _steps(run, size, clock, checked)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; continue with: gemma4vec quickstart --resume {run.path}") from None


def _steps(run: RunFolder, size: Size, clock: "_Clock", checked: CheckedInputs | None) -> dict[str, Any]:
    started = time.perf_counter()
    suite: RetrievalSuite | None = None
    if not (run.model / "gemma4vec.json").exists():
        prepared = prepare_run(run, recipe_of(run), step=clock.step, checked=checked)
        suite = _test_suite(run, prepared.data[0], size)
        may_see(suite, Viewer(run.run_id, run.manifest.get("recipe_id")))  # before the training, not after it
        logger.info(f"test: {name_test(recipe_of(run), len(suite.queries), len(suite.corpus))}")
        with clock.step("evaluating BM25"):
            _evaluate(run, "bm25", Bm25Model(), suite)
        if documents_source(recipe_of(run)) is not None and has_public_model():
            with clock.step(f"evaluating {MODELS['public']}"):
                _evaluate(run, "public", Embedder.load(PUBLIC), suite)
        with clock.step("loading the base"):
            trainer = Trainer(prepared)
        with clock.step("evaluating the untrained base"):
            _evaluate(run, "untrained", trainer.embedder("untrained"), suite)
        with clock.step("training"):
            trainer.train(0)
        with clock.step("saving the model"):
            trainer.save()
        del trainer, prepared
    suite = suite or load_suite(_suite_folder(run))
    with clock.step("evaluating the trained model"):
        _evaluate_and_index(run, suite)
    source = documents_source(recipe_of(run))
    if source is not None and is_indexed_now(source):
        with clock.step("search index of all documents"):
            open_index(run.path, Embedder.load(run.path), True, None)
    with clock.step("report"):
        summary = summarize(run, suite)
        add_scores(run.model, _card_lines(summary))
        report = write_report(run.path)
    return {**summary, "report": str(report), "seconds": time.perf_counter() - started}


def summarize(run: RunFolder, suite: RetrievalSuite) -> dict[str, Any]:
    """Return scores with intervals of every evaluated model, and a sentence that compares them."""
    models = []
    for key, label in MODELS.items():
        folder = run.evaluation(key, suite.name)
        if not (folder / "metrics.json").exists():
            continue
        result = load_result(folder)
        interval = result.interval("ndcg@10")
        models.append({"model": label, **result.mean, "low": interval.low, "high": interval.high})
    training = run.events("finished")
    return {
        "run": str(run.path),
        "suite": suite.name,
        "queries": len(suite.queries),
        "documents": len(suite.corpus),
        "test": name_test(recipe_of(run), len(suite.queries), len(suite.corpus)),
        "example": suite.queries[0] if documents_source(recipe_of(run)) else "read a file line by line",
        "models": models,
        "sentence": format_headline(read_run(run.path)),
        "model": str(run.model),
        "training": training[-1] if training else None,
    }


class _Clock:
    """Log the name of each step, and record its seconds as an event of the run, once there is one."""

    def __init__(self) -> None:
        self._run: RunFolder | None = None
        self._waiting: list[tuple[str, float]] = []
        self._name, self._started = "", 0.0

    def begin(self, run: RunFolder) -> None:
        """The run's folder is there: record the steps before it, and all that follow."""
        self._run = run
        for name, seconds in self._waiting:
            run.event("quickstart_step", what=name, seconds=seconds)

    def step(self, name: str) -> "_Clock":
        self._name = name
        return self

    def __enter__(self) -> None:
        logger.info(f"== {self._name}")
        self._started = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        seconds = time.perf_counter() - self._started
        if self._run is None:
            self._waiting.append((self._name, seconds))
        else:
            self._run.event("quickstart_step", what=self._name, seconds=seconds)


def _test_suite(run: RunFolder, loaded: TrainingData, size: Size) -> RetrievalSuite:
    """The sampled test suite, stored in the run folder with its texts."""
    if (run.path / "suite" / "corpus.jsonl").exists():
        return load_suite(_suite_folder(run))
    if loaded.test_suite is None:
        raise InputError("quickstart needs a source that has a test suite; use source: pycode or documents")
    suite = sample_suite(load_suite(loaded.test_suite), *size.limits(recipe_of(run)))
    folder = run.path / "suite"
    write_suite(folder, suite)
    run.update_manifest(suites={suite.name: {"path": str(folder.resolve()), "fingerprint": suite.fingerprint}})
    return load_suite(folder)


def _suite_folder(run: RunFolder) -> Path:
    return run.path / "suite"


def _evaluate(run: RunFolder, name: str, model: TextEmbedder | Ranker, suite: RetrievalSuite) -> Result:
    folder = run.evaluation(name, suite.name)
    if (folder / "metrics.json").exists():
        return load_result(folder)
    with bars_by_stage(MODELS[name]) as report:
        result = evaluate(model, suite, folder, name=name, progress=report)
    logger.info(f"{MODELS[name]}: nDCG@10 {result.mean['ndcg@10']:.4f}")
    return result


def _evaluate_and_index(run: RunFolder, suite: RetrievalSuite) -> None:
    """Embed the test corpus once, for both scores and search index."""
    index = index_folder(run.path, False, None)
    if (run.evaluation("trained", suite.name) / "metrics.json").exists() and (index / "meta.json").exists():
        return
    embedder = Embedder.load(run.path)
    check_allowed(embedder, [suite])  # before the texts are embedded
    with ProgressBar(MODELS["trained"], "documents") as bar:
        vectors_MD = embedder.encode_document(suite.corpus, progress=bar)
    folder = run.evaluation("trained", suite.name)
    result = evaluate(embedder, suite, folder, name="trained", documents_MD=vectors_MD)
    logger.info(f"{MODELS['trained']}: nDCG@10 {result.mean['ndcg@10']:.4f}")
    documents = indexed_documents(recipe_of(run), suite)
    SearchIndex.save(
        index, documents, vectors_MD, model=embedder.name, fingerprint=embedder.fingerprint, source=suite.name
    )


def _card_lines(summary: dict[str, Any]) -> list[str]:
    lines = [
        f"{summary['test']} (`{summary['suite']}`); 95% bootstrap intervals over queries.",
        "",
        "| model | nDCG@10 | 95% interval | Recall@100 | MRR@10 | MAP |",
        "|---|---|---|---|---|---|",
    ]
    for row in summary["models"]:
        lines.append(
            f"| {row['model']} | {row['ndcg@10']:.4f} | {row['low']:.4f} to {row['high']:.4f} | "
            f"{row['recall@100']:.4f} | {row['mrr@10']:.4f} | {row['map']:.4f} |"
        )
    return [*lines, "", summary["sentence"]]
