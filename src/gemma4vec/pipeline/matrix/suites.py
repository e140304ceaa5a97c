"""The suites of a matrix: sampled once and stored in its folder, so that all cells are measured on the same texts."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gemma4vec.data.loading.load_rows import TrainingData, load_sources
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite, read_options, write_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.files import write_json
from gemma4vec.ledger.suite_access import HELD_OUT, NamedSuite, check_choice, count_models, may_see
from gemma4vec.ledger.suite_contents import SeenSuite
from gemma4vec.pipeline.matrix.plan import Plan
from gemma4vec.pipeline.matrix.state import MatrixFolder
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.recipe.matrix import SuiteSample

logger = logging.getLogger(__name__)

SAMPLED_FROM = "sampled_from.json"
SOURCE = "source:"  # "source:dev" and "source:test" are the suites of the training data


def check_suites(plan: Plan) -> None:
    """Refuse missing suite folders before anything is built or loaded.

    Raises:
        InputError: no such folder, or a final suite listed under `dev`.
    """
    for where, samples in (("dev", plan.matrix.dev), ("final", plan.matrix.final)):
        for sample in samples:
            if sample.suite.startswith(SOURCE):
                if sample.suite not in ("source:dev", "source:test"):
                    raise InputError(f"{where}: {sample.suite!r} is unknown; use source:dev, source:test or a folder")
            elif not Path(sample.suite).expanduser().is_dir():
                raise InputError(f"{where}: no suite folder {sample.suite}")
            elif where == "dev" and _is_declared_final(sample):
                raise InputError(f"dev: {sample.suite} is a final suite, which must not guide choices; use a dev suite")


def explain_held_out(plan: Plan, final: Sequence[Path]) -> dict[str, str]:
    """The reason for which unfrozen recipes may be scored on the final suites, by the suite's folder in the matrix.

    The matrix holds these suites out: its choices use the dev suites only, and each cell is scored once. A suite whose
    own suite.yaml declares it final has no reason here, and neither has one that the ledger knows as final from a lock
    or from a look outside of matrices: its recipe must be frozen first, as everywhere.
    """
    words = f"{HELD_OUT} {plan.matrix.name}, whose choices use its dev suites only"
    reasons = {}
    for sample, path in zip(plan.matrix.final, final, strict=True):
        if _is_declared_final(sample):
            continue
        suite = load_suite(path)
        asked: list[SeenSuite] = [suite, *_sampled_from(path)]
        try:
            for one in asked:
                may_see(one, use="hold out")
        except InputError as error:
            logger.warning(f"warning: final: {error}")
            continue
        seen = count_models(suite.fingerprint)
        reasons[str(path)] = words + (f"; {seen} models were seen on it before this call" if seen else "")
    return reasons


def _is_declared_final(sample: SuiteSample) -> bool:
    if sample.suite.startswith(SOURCE):
        return False
    return bool(read_options(Path(sample.suite).expanduser() / "suite.yaml").get("role") == "final")


def freeze_suites(plan: Plan, folder: MatrixFolder) -> tuple[list[Path], list[Path]]:
    """Create the dev and final suites that do not exist yet; return the folders of all.

    Raises:
        InputError: a suite is missing or malformed, two share a name, or one is both dev and final.
    """
    loaded: list[TrainingData] = []

    def source() -> TrainingData:
        if not loaded:
            control = next(iter(plan.controls.values()))
            recipe = plan.recipe(plan.grid(control)[0])
            stage = next(stage for stage in recipe.stages if stage.task.kind == "contrast")
            loaded.append(load_sources(stage.data, stage.mixture))
        return loaded[0]

    dev = [_freeze(sample, folder.suites / f"dev-{n}", "dev", source) for n, sample in enumerate(plan.matrix.dev)]
    final = [
        _freeze(sample, folder.suites / f"final-{n}", "final", source) for n, sample in enumerate(plan.matrix.final)
    ]
    suites = {path: load_suite(path) for path in [*dev, *final]}
    for path in dev:
        check_choice("dev", suites[path], *_sampled_from(path))
    names = [suite.name for suite in suites.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"dev, final: two suites are named {twice!r}; a final suite must not guide choices")
    write_json(
        folder.path / "suites.json",
        {
            suite.name: {"folder": path.name, "fingerprint": suite.fingerprint, "role": suite.role}
            | {"queries": len(suite.queries), "documents": len(suite.corpus)}
            for path, suite in suites.items()
        },
    )
    return dev, final


def _freeze(sample: SuiteSample, folder: Path, role: str, source: Callable[[], TrainingData]) -> Path:
    if not (folder / "corpus.jsonl").exists():
        whole = _load(sample.suite, source)
        found = sample_suite(whole, sample.max_queries, sample.max_documents, keep=sample.keep, seed=sample.seed)
        write_suite(folder, replace(found, role="dev" if role == "dev" else "final"))
        write_json(folder / SAMPLED_FROM, {"name": whole.name, "fingerprint": whole.fingerprint})
    return folder


def _sampled_from(folder: Path) -> list[NamedSuite]:
    """The suite that a stored one was sampled from, which the ledger may know; none in matrices of older versions."""
    file = folder / SAMPLED_FROM
    return [NamedSuite(**load_own_json(file))] if file.is_file() else []


def _load(spec: str, source: Callable[[], TrainingData]) -> RetrievalSuite:
    if not spec.startswith(SOURCE):
        return load_suite(Path(spec).expanduser())
    which = source().dev_suite if spec == "source:dev" else source().test_suite
    if which is None:
        raise InputError(f"{spec}: the training data has no such suite; use a folder")
    suite = load_suite(which)
    # "dev" and "test" are ambiguous in a table of several suites.
    name = suite.name if suite.name not in ("dev", "test") else f"pycode-{suite.name}"
    return replace(suite, name=name)
