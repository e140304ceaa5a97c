"""The stop rule of a stage: supplies the results that `evaluation.planning.stop_question` decides about.

Suite and reference are prepared before weights are loaded, and stored with the rule next to the stage's checkpoints. A
resumed run reads them there, so the rule does not change if somebody evaluates the reference again or deletes it.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.planning.stop_question import StopQuestion, forecast_stop_rule
from gemma4vec.evaluation.results.result import Result, load_matching_result, load_result, save_result
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.files import write_json
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.reading.json_values import read_json
from gemma4vec.recipe import schema
from gemma4vec.recipe.stop_rule import StopRule
from gemma4vec.training.monitoring.dev_suite import dev_folder, open_dev_suite
from gemma4vec.training.monitoring.stop_reference import check_reference, reference_results
from gemma4vec.training.monitoring.weight_snapshots import checkpoint_name

logger = logging.getLogger(__name__)

REFERENCE, RULE = "reference", "stop-rule.json"


@dataclass(frozen=True)
class StopCheck:
    """One look at a training.

    Attributes:
        score, fields: nDCG@10 and the event's fields, as for every evaluation during training.
        look: fields of the event `look`.
        stopped: reason to end the training here; None to continue.
        sentence: the look, for a person.
    """

    score: float
    fields: dict[str, Any]
    look: dict[str, Any]
    stopped: str | None
    sentence: str


@dataclass(frozen=True)
class LoadedStopRule:
    """A stop rule with its suite and reference.

    Attributes:
        references: one result, or one for each look.
    """

    settings: StopRule
    suite: RetrievalSuite
    references: Sequence[Result]

    def due(self, step: int, total: int | None, taken: int) -> int | None:
        """Return the number (from 1) of the look due after `step`, with `taken` looks taken; None if none is due.

        A budget in minutes or tokens may become known after a look's planned step; the look is then due at once.
        """
        if total is None and self.settings.at_shares:
            return None
        passed = sum(place <= step for place in self.settings.steps(total or step))
        return passed if passed > taken and step != total else None

    def check(self, number: int, step: int, result: Result) -> StopCheck:
        """Ask the rule about the result of look `number` (from 1)."""
        reference = self.references[number - 1 if len(self.references) > 1 else 0]
        question = StopQuestion.of_rule(self.settings)
        answer = question.answer([result], [reference])
        place = f"{self.suite.name} at step {step} (look {number} of {question.looks})"
        stopped = answer.reason(place, self.settings.reference) if answer.stop else None
        interval = result.interval("ndcg@10")
        fields = {"suite": self.suite.name, "ndcg@10": interval.mean, "low": interval.low, "high": interval.high}
        look = {
            "look": number,
            "looks": question.looks,
            "suite": self.suite.name,
            **answer.fields(),
            "stopped": stopped is not None,
            "reason": stopped or answer.decision.reason,
        }
        found = answer.decision.interval
        sentence = (
            f"look {number} of {question.looks}: {question.metric} {answer.score:.4f}, {reference.model} "
            f"{answer.reference:.4f}, difference {found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
        )
        return StopCheck(interval.mean, fields, look, stopped, sentence)


@dataclass(frozen=True)
class StopRuleMonitor:
    """A loaded stop rule and the training that it watches.

    Attributes:
        embedder: makes the current model from a name and the SHA-256 of the weights.
    """

    loaded: LoadedStopRule
    stage: int
    run: RunFolder
    embedder: Callable[[str, str], Embedder]

    def due(self, step: int, total: int | None, taken: int) -> int | None:
        """See `LoadedStopRule.due`."""
        return self.loaded.due(step, total, taken)

    def check(self, number: int, step: int, weights: str) -> StopCheck:
        """Evaluate the current model, and ask the rule.

        The result is stored as that of a kept checkpoint. An existing result of the same weights is used again.
        """
        name, suite = checkpoint_name(self.stage, step), self.loaded.suite
        model, out = self.embedder(name, weights), self.run.evaluation(name, suite.name)
        result = load_matching_result(out, suite.fingerprint, model.fingerprint) or evaluate(
            model, suite, out, name=name, run=self.run
        )
        return self.loaded.check(number, step, result)


def check_stop_rules(recipe: schema.Recipe, dev_suites: Sequence[Path | None]) -> list[str | None]:
    """Refuse rules that cannot work, without evaluating anything; return each stage's rule in one sentence.

    Args:
        recipe: of the run.
        dev_suites: the dev suite of each stage's sources, if any.

    Raises:
        InputError: one line that names the recipe's key.
    """
    sentences: list[str | None] = []
    for number, (stage, dev) in enumerate(zip(recipe.stages, dev_suites, strict=True)):
        rule, key = stage.evaluation.stop, _key(number)
        if rule is None:
            sentences.append(None)
            continue
        suite = rule_suite(stage.evaluation, dev, key)
        check_reference(rule, number, suite, key)
        sentences.append(forecast_stop_rule(rule, suite.name, suite.fingerprint, len(suite.queries)).sentence())
    return sentences


def rule_suite(settings: schema.Evaluation, dev: Path | None, key: str) -> RetrievalSuite:
    """Open the dev suite of the rule: the one for evaluations during training.

    Raises:
        InputError: there is none, it is a final one, or its files are not valid.
    """
    folder = dev_folder(settings, dev)
    if folder is None:
        raise InputError(f"{key}: there is no suite to look at; name a dev suite as {key.removesuffix('.stop')}.suite")
    return open_dev_suite(folder, settings.max_queries, settings.max_documents, key)


def load_stop_rules(
    run: RunFolder, recipe: schema.Recipe, dev_suites: Sequence[Path | None]
) -> list[LoadedStopRule | None]:
    """Load the rules of all stages and evaluate their references, before any weight of this run is loaded.

    Raises:
        InputError: one line that names the recipe's key; or the suite is no longer the one that the rule was set for.
    """
    known = [(_folder(run, recipe, number) / RULE).is_file() for number in range(len(recipe.stages))]
    if not all(one or stage.evaluation.stop is None for one, stage in zip(known, recipe.stages, strict=True)):
        for sentence in check_stop_rules(recipe, dev_suites):
            if sentence:
                logger.info(sentence)
    return [_ready(run, recipe, number, dev) for number, dev in enumerate(dev_suites)]


def _ready(run: RunFolder, recipe: schema.Recipe, number: int, dev: Path | None) -> LoadedStopRule | None:
    settings = recipe.stages[number].evaluation
    rule, key, folder = settings.stop, _key(number), _folder(run, recipe, number)
    if rule is None:
        return None
    suite = rule_suite(settings, dev, key)
    if not (folder / RULE).is_file():
        found = reference_results(rule, number, suite, key)
        _write(folder, rule, suite, found)
        run.event("stop_rule", stage=number, suite=suite.name, **rule.model_dump(mode="json"))
    known = read_json(folder / RULE, "the stop rule", "restore it, or start a new run")
    if not isinstance(known, dict) or known.get("rule") != rule.model_dump(mode="json"):
        raise InputError(
            f"{key}: it is not the rule any more that was set before the run ({folder / RULE}); put it back, or start "
            "a new run"
        )
    references = [load_result(path) for path in sorted((folder / REFERENCE).iterdir())]
    if any(one.contents != suite.fingerprint for one in references):
        raise InputError(
            f"{key}: {suite.name} is not the suite any more that the rule was set for; put its files back, or start a "
            "new run"
        )
    return LoadedStopRule(rule, suite, references)


def _write(folder: Path, rule: StopRule, suite: RetrievalSuite, references: Sequence[Result]) -> None:
    """Store references and rule; the rule's file comes last and marks them complete."""
    shutil.rmtree(folder / REFERENCE, ignore_errors=True)
    for place, one in enumerate(references):
        save_result(one, folder / REFERENCE / f"{place:03d}", top=[])
    about = [{"model": one.model, "fingerprint": one.settings.get("model_fingerprint")} for one in references]
    write_json(
        folder / RULE,
        {"rule": rule.model_dump(mode="json"), "suite": suite.name, "contents": suite.fingerprint, "references": about},
    )


def _folder(run: RunFolder, recipe: schema.Recipe, number: int) -> Path:
    return run.checkpoints / f"{number}-{recipe.stages[number].name}"


def _key(number: int) -> str:
    return f"stages.{number}.evaluation.stop"
