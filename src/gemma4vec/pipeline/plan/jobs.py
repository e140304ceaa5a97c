"""From a plan to its jobs: one job for each model that it makes, in order.

A job's key is its step's name, or `STEP/MODEL` where a step makes several models. Which runs of a step with `keep` go
on is known once all of them are scored, so jobs name what they need by references (`STEP` or `STEP/MODEL`), and
`Outline.used` resolves these with the records on disk.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import slug
from gemma4vec.pipeline.plan.mixtures import draw_mixtures, weigh_sources
from gemma4vec.reading.yaml_values import read_text
from gemma4vec.recipe.find import find_recipe
from gemma4vec.recipe.load import parse_recipe, read_tree, typed_overrides, validate
from gemma4vec.recipe.plans.plan import Plan, Step
from gemma4vec.recipe.schema import WRITERS, Recipe, VectorToText
from gemma4vec.recipe.start import CARRIED

Kind = Literal["train", "soup", "quantize", "decode"]
EMBEDDER = "stages.0.task.embedder"
# Readouts that have nothing to train.
WITHOUT_WEIGHTS = {"last_token", "first_token", "mean", "weighted_mean"}


class Scored(Protocol):
    """What a choice between runs needs to know about one."""

    @property
    def dev(self) -> float | None:
        """Mean dev score; None until it is known."""


@dataclass(frozen=True)
class Job:
    """What makes one model.

    Attributes:
        key: its name in the plan.
        step: its step.
        kind: what it does.
        needs: references to the models that it builds on.
        file: of the recipe; None for a job without training.
        changes: overrides of the recipe, `key.path=value`.
        recipe: the recipe, with the model settings that it takes over and its own budget.
        share: of the training time.
        mixture: weights of the sources, if the plan sets them.
        method, start_weight: of a soup.
        scheme: of a quantization.
    """

    key: str
    step: str
    kind: Kind
    needs: tuple[str, ...] = ()
    file: Path | None = None
    changes: tuple[str, ...] = ()
    recipe: Recipe | None = None
    share: float = 0.0
    mixture: Mapping[str, float] = field(default_factory=dict)
    method: str = ""
    start_weight: float = 0.0
    scheme: str = ""

    @property
    def trains(self) -> bool:
        """Whether it has a part of the training time."""
        return self.recipe is not None

    @property
    def makes_model(self) -> bool:
        """Whether it makes an embedding model, which is scored."""
        return self.kind != "decode"

    def definition(self) -> dict[str, Any]:
        """What must not change once the job has begun, as JSON values."""
        recipe = None if self.recipe is None else self.recipe.model_dump(mode="json")
        value: dict[str, Any] = {
            "kind": self.kind,
            "needs": ", ".join(self.needs),
            "recipe": recipe,
            "mixture": dict(self.mixture),
        }
        value |= {"method": self.method, "start_weight": self.start_weight, "scheme": self.scheme}
        plain: dict[str, Any] = json.loads(json.dumps(value))
        return plain


@dataclass(frozen=True)
class Outline:
    """A plan with its jobs, by key and in order."""

    plan: Plan
    jobs: dict[str, Job]

    def models(self, reference: str) -> list[str]:
        """Keys of all jobs that a reference may mean, before any choice."""
        if reference in self.jobs:
            return [reference]
        return [job.key for job in self.jobs.values() if job.step == reference]

    def used(self, reference: str, records: Mapping[str, Scored]) -> list[str]:
        """Keys of the jobs that a reference means: of a step with `keep`, the best by dev score.

        Runs without a score are never chosen; of equal scores the earlier run is.
        """
        found = self.models(reference)
        keep = self.plan.steps[reference].keep if reference in self.plan.steps else None
        if keep is None:
            return found
        scored = [key for key in found if key in records and records[key].dev is not None]
        best = sorted(scored, key=lambda key: -(records[key].dev or 0.0))[:keep]
        return [key for key in found if key in best]

    def parents(self, job: Job, records: Mapping[str, Scored]) -> list[str]:
        """Keys of the jobs whose models a job reads."""
        return list(dict.fromkeys(key for reference in job.needs for key in self.used(reference, records)))

    @property
    def results(self) -> list[str]:
        """Keys of the jobs that make a model on which no other builds: what the plan is for."""
        models = {key: job for key, job in self.jobs.items() if job.makes_model}
        needed = {key for job in models.values() for reference in job.needs for key in self.models(reference)}
        return [key for key in models if key not in needed]

    def final_recipe(self, job: Job, minutes: float | None, start: Path | None) -> Recipe:
        """The recipe of a job's run, with its part of the time and the model that it starts from.

        Args:
            job: one that trains.
            minutes: training time of all its stages together; None: the recipe's own budgets.
            start: folder of the model that it starts from, or whose vectors it inverts.
        """
        assert job.recipe is not None and job.file is not None
        changes = list(job.changes)
        if minutes is not None:
            parts = [stage.budget.minutes for stage in job.recipe.stages]
            weights = [1.0 if None in parts else part or 1.0 for part in parts]
            # A stage that asks for a least number of steps gets it, beyond the plan's minutes if it must be.
            budgets = [
                {"minutes": minutes * weight / sum(weights), "least_steps": stage.budget.least_steps}
                for weight, stage in zip(weights, job.recipe.stages, strict=True)
            ]
            changes += [f"stages.{number}.budget={json.dumps(budget)}" for number, budget in enumerate(budgets)]
        if start is not None:
            changes.append(f"{'model.start' if job.makes_model else EMBEDDER}={json.dumps(str(start))}")
        return parse_recipe(read_text(job.file, "recipe"), _where(job.file, job.step), changes)


def make_outline(plan: Plan, folder: Path) -> Outline:
    """Read every recipe of a plan; relative paths are looked up in `folder`, the plan file's, first.

    Raises:
        InputError: a recipe is missing or invalid, a mixture names no source, or a recipe contradicts the model that it
            starts from.
    """
    outline = Outline(plan, {})
    for name, step in plan.steps.items():
        if step.soup is not None:
            for model, method in zip(plan.models(name), (step.soup.method, *step.soup.also), strict=True):
                weight = step.soup.start_weight
                _add(outline, name, model, Job("", name, "soup", step.soup.of, method=method, start_weight=weight))
        elif step.quantize is not None:
            _add_quantization(outline, name, step, folder)
        else:
            _add_trainings(outline, name, step, folder)
    return outline


def _add(outline: Outline, step: str, model: str, job: Job) -> None:
    key = f"{step}/{model}" if model else step
    outline.jobs[key] = Job(**{**vars(job), "key": key})


def _add_trainings(outline: Outline, name: str, step: Step, folder: Path) -> None:
    assert step.train is not None
    file = find_step_recipe(step.train, folder, f"steps.{name}.train")
    if step.inverts is not None:
        _add_decoder(outline, name, step, file)
        return
    needs = (step.start,) if step.start is not None else ()
    changes = _changes(outline, name, step, needs, file)
    mixtures: dict[str, Mapping[str, float]] = {**step.mixtures}
    if step.draw is not None:
        mixtures |= draw_mixtures(step.draw)
    plain = _recipe(file, name, changes)[0]
    if isinstance(plain.stages[0].task, WRITERS):
        kind = plain.stages[0].task.kind
        raise InputError(
            f"steps.{name}: {file.name} has the task {kind}, which makes no model; name a step in inverts if it is a "
            "decoder's, else train it by itself"
        )
    for model in outline.plan.models(name):
        weights = mixtures.get(model, {})
        where = f"steps.{name}.{'mixtures' if model in step.mixtures else 'draw.around'}"
        own = [*changes, *weigh_sources(plain, weights, where, file.name), _run_name(outline, name, model)]
        recipe, _ = _recipe(file, name, own)
        share = step.share / step.runs
        job = Job("", name, "train", needs, file, tuple(own), recipe, share, weights)
        _add(outline, name, model, job)


def _add_decoder(outline: Outline, name: str, step: Step, file: Path) -> None:
    """A decoder of an earlier step's vectors; until that model exists, its base stands for it.

    Raises:
        InputError: the recipe trains no decoder.
    """
    assert step.inverts is not None
    base = model_settings(outline, outline.models(step.inverts)[0]).model.base
    changes = [*typed_overrides(outline.plan.set), *typed_overrides(step.set)]
    recipe, _ = _recipe(file, name, changes)
    if not isinstance(recipe.stages[0].task, VectorToText):
        raise InputError(
            f"steps.{name}: {file.name} has the task {recipe.stages[0].task.kind}, inverts wants vector_to_text"
        )
    changes += [f"{EMBEDDER}={json.dumps(base)}", _run_name(outline, name, "")]
    recipe, _ = _recipe(file, name, changes)
    job = Job("", name, "decode", (step.inverts,), file, tuple(changes), recipe, step.share)
    _add(outline, name, "", job)


def _add_quantization(outline: Outline, name: str, step: Step, folder: Path) -> None:
    asked = step.quantize
    assert asked is not None
    needs, control = (asked.of,), (f"{name}/control",)
    for scheme in asked.schemes:
        _add(outline, name, scheme, Job("", name, "quantize", needs, scheme=scheme))
    if asked.train is None:
        return
    file = find_step_recipe(asked.train, folder, f"steps.{name}.quantize.train")
    changes = _changes(outline, name, step, needs, file)
    share = step.share / (len(asked.schemes) + asked.control)
    stages = range(len(_recipe(file, name, changes)[0].stages))
    for scheme in asked.schemes:
        own = [*changes, *(f"stages.{number}.quantize={{scheme: {scheme}}}" for number in stages)]
        own.append(_run_name(outline, name, f"{scheme}-trained"))
        recipe, _ = _recipe(file, name, own)
        job = Job("", name, "quantize", needs, file, tuple(own), recipe, share, scheme=scheme)
        _add(outline, name, f"{scheme}-trained", job)
    if asked.control:
        own = [*changes, *(f"stages.{number}.quantize=null" for number in stages), _run_name(outline, name, "control")]
        recipe, _ = _recipe(file, name, own)
        _add(outline, name, "control", Job("", name, "train", needs, file, tuple(own), recipe, share))
        for scheme in asked.schemes:
            _add(outline, name, f"{scheme}-control", Job("", name, "quantize", control, scheme=scheme))


def _run_name(outline: Outline, name: str, model: str) -> str:
    return f"name={json.dumps(slug('-'.join(filter(None, (outline.plan.name, name, model)))))}"


def _changes(outline: Outline, name: str, step: Step, needs: Sequence[str], file: Path) -> list[str]:
    """All changes to a step's recipe but its mixture: those of plan and step, and what it takes over from its start.

    Raises:
        InputError: the recipe gives another value than its start has.
    """
    changes = [*typed_overrides(outline.plan.set), *typed_overrides(step.set)]
    if not needs:
        return changes
    start = model_settings(outline, outline.models(needs[0])[0])
    recipe, given = _recipe(file, name, changes)
    for key in (*CARRIED, "max_tokens"):
        ours, theirs = (one.model.model_dump(mode="json")[key] for one in (recipe, start))
        if key not in given:
            changes.append(f"model.{key}={json.dumps(theirs, ensure_ascii=False)}")
        elif key in CARRIED and ours != theirs and not _may_be_new(key, start):
            raise InputError(
                f"steps.{name}: {file.name} has model.{key} {_short(ours)}, and {needs[0]}, which it starts from, has "
                f"{_short(theirs)}; give both the same"
            )
    return changes


def _may_be_new(key: str, start: Recipe) -> bool:
    """Whether a run may have another readout or head than its start, since the start has no weights of one."""
    model = start.model
    return model.head is None and (key == "head" or (key == "readout" and model.readout.name in WITHOUT_WEIGHTS))


def model_settings(outline: Outline, key: str) -> Recipe:
    """The recipe that decides what kind of model a job makes: its own, or that of what it was made from."""
    job = outline.jobs[key]
    return job.recipe or model_settings(outline, outline.models(job.needs[0])[0])


def _recipe(file: Path, step: str, changes: Sequence[str]) -> tuple[Recipe, frozenset[str]]:
    """The recipe with changes, and the keys of its model that it gives."""
    where = _where(file, step)
    tree = read_tree(read_text(file, "recipe"), where, changes)
    model = tree.get("model")
    return validate(Recipe, tree, where), frozenset(model if isinstance(model, dict) else ())


def _where(file: Path, step: str) -> str:
    return f"steps.{step} ({file})"


def find_step_recipe(spec: str, folder: Path, where: str) -> Path:
    """Find a recipe's file: next to the plan, below the working folder, or shipped with the package.

    Raises:
        InputError: it is nowhere; `where` begins the line.
    """
    ending = spec.endswith((".yaml", ".yml"))
    for place in (folder, Path()):
        for name in [spec] if ending else [spec, f"{spec}.yaml"]:
            if (place / name).is_file():
                return (place / name).resolve()
    try:
        return find_recipe(spec.removesuffix(".yaml"))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
