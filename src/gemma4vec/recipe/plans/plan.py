"""The plan: runs that build on each other, in steps, with soups and quantization between them; all fixed beforehand."""

import difflib
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BeforeValidator, Field, JsonValue, model_validator

from gemma4vec.reading.names import Name
from gemma4vec.recipe.plans.matrix import SuiteSample
from gemma4vec.recipe.plans.variables import load_with_variables
from gemma4vec.recipe.schema import Part

Mix = Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(min_length=1)]
Changes = dict[str, JsonValue]


def _one_or_several(value: object) -> object:
    """A single name may be given without a list."""
    return [value] if isinstance(value, str) else value


def _suite(value: object) -> object:
    """A suite may be given by its folder alone."""
    return {"suite": value} if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_several)]
Samples = tuple[Annotated[SuiteSample, BeforeValidator(_suite)], ...]


class Draw(Part):
    """Mixtures that are drawn at random around a known one: one run each, at equal budget."""

    dirichlet: int = Field(ge=1, le=1000, description="number of mixtures, drawn from a Dirichlet distribution")
    around: Mix = Field(description="source -> weight: the mean of the distribution")
    concentration: float = Field(
        20.0, gt=0, description="how near `around` the draws are: the sum of the distribution's parameters"
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="another seed draws other mixtures")


class Soup(Part):
    """The mean of models that were trained from one start (Wortsman et al. 2022, arXiv:2203.05482)."""

    of: Names = Field(description="steps whose models are averaged; of a step with mixtures all, or `STEP/MIXTURE`")
    method: Name = Field(
        "uniform", description="uniform, greedy (chooses by the dev suites), or a method of mergekit's"
    )
    also: Annotated[tuple[Name, ...], BeforeValidator(_one_or_several)] = Field(
        (), description="further methods, for comparison; no later step builds on them"
    )
    start_weight: float = Field(0.0, ge=0, lt=1, description="share of the common start in the result (WiSE-FT)")


class Quantization(Part):
    """The model on the grids of one or more schemes, without and with training for them."""

    of: str = Field(description="the step whose model is quantized")
    schemes: Annotated[tuple[Literal["q8_0", "q4_0", "mixed"], ...], Field(min_length=1)] = Field(
        description="each makes a model"
    )
    train: str | None = Field(
        None, description="recipe of the training for the grid (fake quantization); null: quantize as it is"
    )
    control: bool = Field(
        False, description="also train that recipe without fake quantization, and quantize its result: the fair control"
    )


class Step(Part):
    """One step: exactly one of `train`, `soup` and `quantize`."""

    train: str | None = Field(None, description="recipe: a file next to the plan, or a shipped name")
    start: str | None = Field(None, description="the earlier step whose model is trained further; null: the base")
    inverts: str | None = Field(
        None,
        description="the earlier step whose model's vectors the recipe's decoder turns back into texts; null: the "
        "recipe trains a model",
    )
    set: Changes = Field({}, description="changes to the recipe, `key.path: value`")
    mixtures: dict[Name, Mix] = Field(
        {}, description="name -> source -> weight: one run for each; sources that it does not name have weight 0"
    )
    draw: Draw | None = Field(None, description="mixtures that are drawn; null: none")
    keep: int | None = Field(
        None, ge=1, description="number of runs, the best by mean dev score, that later steps use; null: all"
    )
    share: float = Field(
        1.0, gt=0, description="share of the training time, relative to other steps; its runs have equal parts"
    )
    soup: Soup | None = Field(None, description="average models")
    quantize: Quantization | None = Field(None, description="quantize a model")

    @property
    def references(self) -> tuple[str, ...]:
        """The steps, or models of steps, that this one builds on."""
        if self.soup is not None:
            return self.soup.of
        if self.quantize is not None:
            return (self.quantize.of,)
        return tuple(one for one in (self.start, self.inverts) if one is not None)

    @model_validator(mode="after")
    def _of_one_kind(self) -> "Step":
        kinds = [kind for kind in ("train", "soup", "quantize") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"give exactly one of train, soup, quantize (found {' and '.join(kinds) or 'none'})")
        if self.train is None:
            unset = () if self.quantize and self.quantize.train else ("set",)
            only = ("start", "inverts", "mixtures", "draw", "keep", *unset)
            idle = next((key for key in only if getattr(self, key)), None)
            if idle is not None:
                raise ValueError(f"{idle} is for a training; {kinds[0]} has no use for it")
        if self.inverts is not None:
            idle = next((key for key in ("start", "mixtures", "draw", "keep") if getattr(self, key)), None)
            if idle is not None:
                raise ValueError(f"{idle} is for a training of a model; a decoder has no use for it")
        if self.keep is not None and self.keep >= self.runs:
            raise ValueError(f"keep: {self.keep} of {self.runs} runs chooses nothing; leave it out, or draw more")
        if self.quantize is not None and self.quantize.control and self.quantize.train is None:
            raise ValueError(
                "quantize.control is a training without fake quantization; name a recipe in quantize.train"
            )
        return self

    @property
    def runs(self) -> int:
        """Number of trainings of a train step."""
        return len(self.mixtures) + (self.draw.dirichlet if self.draw else 0) or 1


class Suites(Part):
    """What the models are measured on; each suite is a folder, or a fixed sample of one."""

    dev: Annotated[Samples, Field(min_length=1)] = Field(description="suites for choices: every step is scored on them")
    final: Samples = Field((), description="suites that no choice sees; the results of the plan are scored on them")


class Minutes(Part):
    """A limit for everything together: training, loading, evaluation."""

    minutes: float = Field(gt=0, description="wall time; the trainings share what all else leaves")


class Plan(Part):
    """Runs that build on each other, from a base to a quantized model."""

    name: Name = Field(description="name of the plan and of its folder")
    hypothesis: str = Field("", description="what should move, by how much, on what")
    variables: dict[str, str | None] = Field({}, description="${NAME} elsewhere in this file; null: must be set")
    set: Changes = Field({}, description="changes to every recipe, `key.path: value`")
    budget: Minutes | None = Field(None, description="time for the whole plan; null: each recipe's own budget")
    suites: Suites = Field(description="what the models are measured on")
    metric: Literal["ndcg@10", "recall@100", "mrr@10", "map"] = Field(
        "ndcg@10", description="metric of choices and comparisons"
    )
    smallest_effect: float | None = Field(
        None, gt=0, description="differences below it do not matter; allows the verdict equivalent"
    )
    lengths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="vector lengths of the last table; empty: those that were trained (Matryoshka)"
    )
    steps: Annotated[dict[Name, Step], Field(min_length=1)] = Field(description="name -> step, in their order")

    @model_validator(mode="after")
    def _builds_on_earlier_steps(self) -> "Plan":
        names = list(self.steps)
        builds_on: dict[str, list[str]] = {}
        for name, step in self.steps.items():
            builds_on[name] = [self._step_of(reference, name) for reference in step.references]
        try:
            TopologicalSorter(builds_on).prepare()
        except CycleError as error:
            circle = [str(name) for name in error.args[1]]
            raise ValueError(f"steps: a cycle: {' needs '.join(reversed(circle))}") from None
        for name, earlier in builds_on.items():
            late = next((one for one in earlier if names.index(one) > names.index(name)), None)
            if late is not None:
                raise ValueError(f"steps.{name} needs {late}, which comes later; move {late} up")
        for name, step in self.steps.items():
            decoder = next((one for one in builds_on[name] if self.steps[one].inverts is not None), None)
            if decoder is not None:
                raise ValueError(f"steps.{name}: {decoder} makes a decoder, on which nothing can build")
            if step.soup is not None:
                self._check_soup(name, step.soup)
            else:
                self._check_one_model(name, step)
        return self

    def _step_of(self, reference: str, name: str) -> str:
        """The step that `STEP` or `STEP/MODEL` names."""
        step, slash, model = reference.partition("/")
        if step not in self.steps:
            close = difflib.get_close_matches(step, self.steps, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self.steps)}"
            raise ValueError(f"steps.{name}: there is no step {step!r}; {hint}")
        if slash and model not in self.models(step):
            known = ", ".join(f"{step}/{one}" for one in self.models(step) if one) or "only one model"
            raise ValueError(f"steps.{name}: there is no {reference!r}; the step {step} has {known}")
        return step

    def _check_soup(self, name: str, soup: Soup) -> None:
        used = [self._step_of(reference, name) for reference in soup.of]
        count = sum(
            1 if "/" in reference else self.steps[step].keep or len(self.models(step))
            for reference, step in zip(soup.of, used, strict=True)
        )
        if count < 2:
            raise ValueError(f"steps.{name}.soup.of: a soup needs two models or more, {', '.join(soup.of)} is one")
        if len(set(soup.of)) < len(soup.of):
            raise ValueError(f"steps.{name}.soup.of: a step is given twice")
        methods = (soup.method, *soup.also)
        if len(set(methods)) < len(methods):
            raise ValueError(f"steps.{name}.soup: a method is given twice")

    def _check_one_model(self, name: str, step: Step) -> None:
        for reference in step.references:
            used = self._step_of(reference, name)
            models = self.models(used) if "/" not in reference else [""]
            if "" not in models and self.steps[used].keep != 1:
                known = ", ".join(f"{reference}/{model}" for model in models)
                raise ValueError(f"steps.{name}: {reference} has several models; name one of {known}")

    def models(self, name: str) -> list[str]:
        """Names of a step's models within it; "" is the one that the step's own name means."""
        step = self.steps[name]
        if step.soup is not None:
            return ["", *step.soup.also]
        if step.quantize is not None:
            trained = ["-trained"] if step.quantize.train else []
            control = ["control"] if step.quantize.control else []
            ends = ["", *trained, *(f"-{one}" for one in control)]
            return [*(f"{scheme}{end}" for end in ends for scheme in step.quantize.schemes), *control]
        drawn = [f"draw-{number}" for number in range(step.draw.dirichlet if step.draw else 0)]
        return [*step.mixtures, *drawn] or [""]


def load_plan(path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """The plan in a YAML file, with `key.path=value` overrides and its variables filled in.

    Raises:
        InputError: the file is missing or not YAML, a key is unknown (with a suggestion), a variable is not set, a step
            builds on none or a later one.
    """
    return load_with_variables(Plan, path, "plan", overrides)


def dump_plan(plan: Plan) -> str:
    """The whole plan as YAML, defaults spelled out."""
    text: str = yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return text
