"""The suites of a matrix or a plan: sampled once and stored in its folder, so that all models see the same texts."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.data.suites.retrieval import SAMPLED_FROM, RetrievalSuite, load_suite, read_options, write_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.files import write_json
from gemma4vec.ledger.suite_access import HELD_OUT, NamedSuite, check_choice, count_models, may_see
from gemma4vec.ledger.suite_contents import SeenSuite
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.recipe.plans.matrix import SuiteSample

logger = logging.getLogger(__name__)

SOURCE = "source:"  # "source:dev" and "source:test" are the suites of the training data


def check_samples(dev: Sequence[SuiteSample], final: Sequence[SuiteSample]) -> None:
    """Refuse missing suite folders before anything is built or loaded.

    Raises:
        InputError: no such folder, or a final suite listed under `dev`.
    """
    for where, samples in (("dev", dev), ("final", final)):
        for sample in samples:
            if sample.suite.startswith(SOURCE):
                if sample.suite not in ("source:dev", "source:test"):
                    raise InputError(f"{where}: {sample.suite!r} is unknown; use source:dev, source:test or a folder")
            elif not Path(sample.suite).expanduser().is_dir():
                raise InputError(f"{where}: no suite folder {sample.suite}")
            elif where == "dev" and _is_declared_final(sample):
                raise InputError(f"dev: {sample.suite} is a final suite, which must not guide choices; use a dev suite")


def explain_held_out(holder: str, samples: Sequence[SuiteSample], final: Sequence[Path]) -> dict[str, str]:
    """The reason for which unfrozen recipes may be scored on the final suites, by the suite's stored folder.

    A matrix or plan holds these suites out: its choices use the dev suites only, and each model is scored once. A suite
    whose own suite.yaml declares it final has no reason here, and neither has one that the ledger knows as final from a
    lock or from a look outside of matrices and plans: its recipe must be frozen first, as everywhere.

    Args:
        holder: kind and name, such as "matrix recipes_270m".
        samples: of the final suites.
        final: their stored folders, in the same order.
    """
    words = f"{HELD_OUT} {holder}, whose choices use its dev suites only"
    reasons = {}
    for sample, path in zip(samples, final, strict=True):
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


def freeze_samples(
    folder: Path,
    dev: Sequence[SuiteSample],
    final: Sequence[SuiteSample],
    source: Callable[[], TrainingData],
) -> tuple[list[Path], list[Path]]:
    """Create the dev and final suites that do not exist yet; return the folders of all.

    Args:
        folder: gets `suites/` and `suites.json`.
        dev, final: the samples.
        source: loads the training data that `source:dev` and `source:test` are suites of.

    Raises:
        InputError: a suite is missing or malformed, two share a name, or one is both dev and final.
    """
    stored = folder / "suites"
    dev_folders = [_freeze(sample, stored / f"dev-{n}", "dev", source) for n, sample in enumerate(dev)]
    final_folders = [_freeze(sample, stored / f"final-{n}", "final", source) for n, sample in enumerate(final)]
    suites = {path: load_suite(path) for path in [*dev_folders, *final_folders]}
    for path in dev_folders:
        check_choice("dev", suites[path], *_sampled_from(path))
    names = [suite.name for suite in suites.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"dev, final: two suites are named {twice!r}; a final suite must not guide choices")
    write_json(
        folder / "suites.json",
        {
            suite.name: {"folder": path.name, "fingerprint": suite.fingerprint, "role": suite.role}
            | {"queries": len(suite.queries), "documents": len(suite.corpus)}
            for path, suite in suites.items()
        },
    )
    return dev_folders, final_folders


def _freeze(sample: SuiteSample, folder: Path, role: str, source: Callable[[], TrainingData]) -> Path:
    if not (folder / "corpus.jsonl").exists():
        whole = _load(sample.suite, source)
        found = sample_suite(whole, sample.max_queries, sample.max_documents, keep=sample.keep, seed=sample.seed)
        write_suite(folder, replace(found, role="dev" if role == "dev" else "final"))
        halves = found.halves and {"halves_of": found.halves.contents, "sealed_from": found.halves.begins}
        write_json(folder / SAMPLED_FROM, {"name": whole.name, "fingerprint": whole.fingerprint, **(halves or {})})
    return folder


def _sampled_from(folder: Path) -> list[NamedSuite]:
    """The suite that a stored one was sampled from, which the ledger may know; none in matrices of older versions."""
    file = folder / SAMPLED_FROM
    if not file.is_file():
        return []
    found = load_own_json(file)
    return [NamedSuite(found["name"], found["fingerprint"])]


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
