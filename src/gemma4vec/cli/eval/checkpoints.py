"""`gemma4vec eval RUN --checkpoints`: scores of all checkpoints of a run, and the best one."""

import logging
from typing import TYPE_CHECKING, Any

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gemma4vec.data.suites.group import AnySuite
    from gemma4vec.evaluation.planning.checkpoint_choice import CheckpointPlace
    from gemma4vec.evaluation.results.result import OpenedAs, Result
    from gemma4vec.ledger.run_folder import RunFolder
    from gemma4vec.recipe.schema import Recipe
    from gemma4vec.training.monitoring.weight_snapshots import WeightSnapshot

logger = logging.getLogger(__name__)


def evaluate_checkpoints(
    run: "RunFolder | None",
    suites: "Sequence[AnySuite]",
    opened: "Mapping[str, OpenedAs]",
    *,
    cached: bool,
    look_again: str,
    as_json: bool,
    follow: bool = False,
) -> None:
    """Evaluate every checkpoint on every suite; print the curve and the bias of choosing the best.

    Args:
        suites: empty: each stage's dev suite from the run's manifest.
        opened: suite -> the words by which it was opened.
        follow: also evaluate checkpoints that a running training will still write; skip existing results.

    Raises:
        InputError: not a run, a run without checkpoints, or a final suite without a reason.
    """
    if run is None:
        raise InputError("--checkpoints needs a run: give its id or folder; list them with: gemma4vec runs")
    from gemma4vec.cli.output import emit
    from gemma4vec.recipe.tasks import WRITERS
    from gemma4vec.training.monitoring import background_eval
    from gemma4vec.training.monitoring.weight_snapshots import kept_checkpoints
    from gemma4vec.training.run import recipe_of

    recipe = recipe_of(run)
    if isinstance(recipe.stages[-1].task, WRITERS):
        raise InputError(
            f"{run.path} makes no vectors to be evaluated; a decoder's kept weights are for: gemma4vec invert MODEL "
            f"--decoder {run.path} --step N --evaluate FILE"
        )
    own: dict[int, list[AnySuite]] = {}

    def suites_of(stage: int) -> "Sequence[AnySuite]":
        """Called once the stage has a checkpoint: a training that has just begun has no suite in its manifest yet."""
        if stage not in own:
            own[stage] = list(suites) or [background_eval.dev_suite_of(run, stage)]
            _refuse_final(own[stage], look_again)
        return own[stage]

    _refuse_final(suites, look_again)
    if follow:
        with background_eval.only_one(run):
            checkpoints = background_eval.follow(run, recipe)
            found = _evaluate(
                run, recipe, checkpoints, suites_of, opened, cached=cached, look_again=look_again, again=False
            )
    else:
        kept = kept_checkpoints(run, recipe)
        found = _evaluate(run, recipe, kept, suites_of, opened, cached=cached, look_again=look_again, again=True)
    if not found:
        raise InputError(
            f"{run.path} has no checkpoints; store some with stages.N.evaluation.snapshot_at_shares=[0.5,1.0]"
        )
    plain = [_plain(suite, results) for suite, results in found.items()]
    emit(as_json, plain if len(plain) > 1 else plain[0], lambda _: _render(plain))


def _refuse_final(suites: "Sequence[AnySuite]", look_again: str) -> None:
    """Refuse final suites: choosing a checkpoint on one would spoil it as a test."""
    if not look_again:
        from gemma4vec.ledger.suite_access import check_choice

        try:
            for suite in suites:
                check_choice("--checkpoints", suite, *suite.members)
        except InputError as error:
            raise InputError(f"{error}, or state a reason with --look-again WORDS") from error


def _evaluate(
    run: "RunFolder",
    recipe: "Recipe",
    checkpoints: "Iterable[WeightSnapshot]",
    suites_of: "Callable[[int], Sequence[AnySuite]]",
    opened: "Mapping[str, OpenedAs]",
    *,
    cached: bool,
    look_again: str,
    again: bool,
) -> "dict[str, dict[CheckpointPlace, Result]]":
    """Results by suite and place; without `again`, existing results of the same weights are reused."""
    from gemma4vec.evaluation.results.result import load_matching_result
    from gemma4vec.evaluation.scoring.evaluate import evaluate
    from gemma4vec.model.inference.cached_embedder import CachedEmbedder
    from gemma4vec.training.monitoring.weight_snapshots import checkpoint_models

    found: dict[str, dict[CheckpointPlace, Result]] = {}
    for one, embedder in checkpoint_models(run, recipe, checkpoints):
        model = CachedEmbedder(embedder) if cached else embedder
        for suite in suites_of(one.stage):
            out = run.evaluation(one.name, suite.name)
            result = None if again else load_matching_result(out, suite.fingerprint, model.fingerprint)
            if result is None:
                how = opened.get(suite.name)
                result = evaluate(model, suite, out, name=one.name, run=run, look_again=look_again, opened=how)
            found.setdefault(suite.name, {})[one.stage, one.step] = result
            logger.info(f"{one.name} on {suite.name}: {result.metric} {result.mean[result.metric]:.4f}")
    return found


def _plain(suite: str, results: "dict[CheckpointPlace, Result]") -> dict[str, Any]:
    """The curve on one suite as JSON values; the best checkpoint if each item has its own score."""
    from gemma4vec.evaluation.planning.checkpoint_choice import choice_sentence, choose_checkpoint
    from gemma4vec.evaluation.results.task_scores import PAIRED

    first = next(iter(results.values()))
    metric = first.metric
    rows = []
    for (stage, step), result in results.items():
        interval = result.interval(metric)
        rows.append({"stage": stage, "step": step, metric: interval.mean, "low": interval.low, "high": interval.high})
    best = None
    if len(results) > 1 and first.kind not in PAIRED:
        place, selection = choose_checkpoint(results, metric)
        role = (first.settings.get("suite") or {}).get("role")
        best = {"stage": place[0], "step": place[1], **vars(selection)}
        best["sentence"] = choice_sentence(place, selection, suite, role)
    looks = dict.fromkeys(why for one in results.values() if (why := one.settings.get("look_again")))
    return {"suite": suite, "metric": metric, "checkpoints": rows, "best": best, "look_again": list(looks)}


def _render(plain: list[dict[str, Any]]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    parts: list[Any] = []
    for one in plain:
        cells = [
            [row["stage"], row["step"], row[one["metric"]], f"{row['low']:.3f}-{row['high']:.3f}"]
            for row in one["checkpoints"]
        ]
        parts.append(table(["stage", "step", one["metric"], "95% interval"], cells, title=one["suite"]))
        parts += [Text(one["best"]["sentence"])] if one["best"] else []
        parts += [Text(f"{one['suite']}: a further look at a final suite, since: {why}") for why in one["look_again"]]
    return Group(*parts)
