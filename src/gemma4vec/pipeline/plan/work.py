"""The work of a job, in its own process: make the model, then score it. What is there is never made again."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.find_results import TRAINED
from gemma4vec.evaluation.results.result import METRICS_FILE, load_matching_result
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.inference.truncated_embedder import TruncatedEmbedder
from gemma4vec.model.save.served_folder import matryoshka_dimensions
from gemma4vec.pipeline.plan.job_spec import JobSpec, Made
from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

# kind -> module and function; a kind's libraries are imported when a job needs them
MAKERS = {
    "train": ("gemma4vec.pipeline.plan.train_step", "make_trained"),
    "soup": ("gemma4vec.pipeline.plan.soup_step", "make_averaged"),
    "decode": ("gemma4vec.pipeline.plan.train_step", "make_trained"),
    "quantize": ("gemma4vec.pipeline.plan.quantize_step", "make_quantized"),
}


def run_job(spec: JobSpec) -> None:
    """Make the model of a job, score it, and write what was made to `spec.made`; a decoder is not scored.

    Raises:
        InputError, WorkError, Interrupted: from training, averaging, quantizing or evaluating.
    """
    module, name = MAKERS[spec.kind]
    make: Callable[[JobSpec], Made] = getattr(import_module(module), name)
    made = make(spec)
    if spec.kind == "decode":
        made.write(Path(spec.made))
        return
    embedder = CachedEmbedder(Embedder.load(made.model))
    results = _score_all(spec, made, embedder, spec.dev)
    final, refused = _score_final(spec, made, embedder)
    lengths = _score_lengths(spec, made, embedder)
    replace(made, results={**results, **final}, lengths=lengths, refused=refused).write(Path(spec.made))


def _score_all(spec: JobSpec, made: Made, embedder: CachedEmbedder, suites: Sequence[str]) -> dict[str, str]:
    run = made.run_folder
    # A quantized model's run has the weights before the grid, if it was trained; its results have their own place.
    own = run is not None and spec.kind != "quantize"
    found = {}
    for path in suites:
        suite = load_suite(Path(path))
        folder = run.evaluation(TRAINED, suite.name) if own and run is not None else Path(spec.results) / suite.name
        name = TRAINED if own else spec.key
        found[suite.name] = _score(embedder, suite, folder, name, run if own else None, spec.look_again.get(path, ""))
    return found


def _score_final(spec: JobSpec, made: Made, embedder: CachedEmbedder) -> tuple[dict[str, str], dict[str, str]]:
    """Results on the final suites, and why there is none on others: their recipe must be frozen first."""
    found: dict[str, str] = {}
    refused: dict[str, str] = {}
    for path in spec.final:
        try:
            found |= _score_all(spec, made, embedder, [path])
        except InputError as error:
            refused[load_suite(Path(path)).name] = str(error)
    return found, refused


def _score_lengths(spec: JobSpec, made: Made, embedder: CachedEmbedder) -> dict[str, dict[str, str]]:
    """Results on dev of vectors cut to each length; their texts are not encoded again."""
    if spec.lengths is None:
        return {}
    lengths = spec.lengths or matryoshka_dimensions(Path(made.model))
    found: dict[str, dict[str, str]] = {}
    for length in sorted({one for one in lengths if one < embedder.dimension}, reverse=True):
        cut = TruncatedEmbedder(embedder, length)
        for path in spec.dev:
            suite = load_suite(Path(path))
            folder = Path(spec.results) / f"length-{length}" / suite.name
            name = f"{spec.key} at {length}"
            found.setdefault(str(length), {})[suite.name] = _score(cut, suite, folder, name, made.run_folder)
    return found


def _score(
    embedder: TextEmbedder, suite: RetrievalSuite, folder: Path, name: str, run: RunFolder | None, words: str = ""
) -> str:
    if load_matching_result(folder, suite.fingerprint, embedder.fingerprint) is None:
        result = evaluate(embedder, suite, folder, name=name, run=run, look_again=words)
        logger.info(f"{name} on {suite.name}: {result.metric} {result.mean[result.metric]:.4f}")
    assert (folder / METRICS_FILE).is_file()
    return str(folder)
