"""Scores of ingredients and soups on dev suites: looks that the ledger records, through the guarded evaluation.

A choice is made on these scores, so a final suite is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma4vec.data.suites.group import AnySuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.find_results import TRAINED, free_folder
from gemma4vec.evaluation.results.result import Result, load_matching_result
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.guards import check_allowed, find_owner
from gemma4vec.evaluation.scoring.mteb_suite import MtebSuite
from gemma4vec.evaluation.scoring.open_any_suite import open_any_suite
from gemma4vec.ledger.run_folder import RunFolder, slug
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.machine.terminal import bars_by_stage
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.embedder import Embedder

Suite = AnySuite | MtebSuite


@dataclass(frozen=True)
class DevScore:
    """The scores of one model.

    Attributes:
        by_suite: suite -> its main metric.
    """

    by_suite: Mapping[str, float]

    @property
    def mean(self) -> float:
        """The mean over suites, which greedy compares."""
        return sum(self.by_suite.values()) / len(self.by_suite)


def open_dev_suites(specs: Sequence[str]) -> list[Suite]:
    """Open the suites that `--dev` names.

    Raises:
        InputError: no such suite, a final or locked one, or two of one name.
    """
    suites = [open_any_suite(spec) for spec in specs]
    names = [suite.name for suite in suites]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--dev: two suites are named '{name}'; give each suite once")
    check_choice("--dev", *suites)
    return suites


def score_model(
    folder: Path, suites: Sequence[Suite], run: RunFolder | None, shelf: RunFolder, name: str, *, keep: bool = True
) -> DevScore:
    """Score a model folder on every suite.

    Args:
        folder: the model.
        suites: from `open_dev_suites`.
        run: its run, whose folder takes the results; a result of the same model there is not made again.
        shelf: the run that takes the results of a model whose own run's folder is gone.
        name: of the model, for messages and there.
        keep: write the results; the ledger records the looks in any case.
    """
    embedder = CachedEmbedder(Embedder.load(folder))
    check_allowed(embedder, suites, owner=find_owner(embedder, run=run))
    scores = {}
    for suite in suites:
        where = run.path / "evals" / TRAINED if run is not None else shelf.path / "evals" / slug(name)
        out = free_folder(where, suite.name, embedder, replaces_other_weights=run is not None) if keep else None
        known = load_matching_result(out, suite.fingerprint, embedder.fingerprint) if out is not None else None
        scores[suite.name] = _main(known or _look(embedder, suite, out, run, name, kept=keep))
    return DevScore(scores)


def _look(
    embedder: CachedEmbedder, suite: Suite, out: Path | None, run: RunFolder | None, name: str, *, kept: bool
) -> Result:
    with bars_by_stage(f"{name} on {suite.name}") as progress:
        return evaluate(embedder, suite, out, name=None if kept else name, run=run, progress=progress)


def _main(result: Result) -> float:
    return result.mean[result.metric]
