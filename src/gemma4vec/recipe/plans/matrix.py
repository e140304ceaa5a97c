"""The matrix plan: which recipes are compared, on what, with which seeds, by which rules; all fixed beforehand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gemma4vec.reading.names import Name
from gemma4vec.recipe.plans.variables import load_with_variables
from gemma4vec.recipe.renamed import current_path
from gemma4vec.recipe.schema import Part


def _current_override(override: str) -> str:
    """An override's text with today's key names, so that a plan stays the plan it was."""
    path, separator, value = override.partition("=")
    return f"{current_path(path)}{separator}{value}"


Overrides = tuple[Annotated[str, Field(pattern=r"^[^=]+="), AfterValidator(_current_override)], ...]


def _spelled_out(value: object) -> object:
    """A recipe may be given by its path alone."""
    return {"recipe": value} if isinstance(value, str) else value


def _text_keys(value: object) -> object:
    """Labels such as 128 are numbers to YAML."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value


class Entry(Part):
    """One recipe of the matrix."""

    recipe: str = Field(description="a file, next to the plan or below the working folder, or a shipped name")
    name: Name = Field("", description="name in tables; by default the file's name")
    overrides: Overrides = Field((), description="`key.path=value`, for this recipe")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("recipe"), str):
            return {"name": Path(value["recipe"]).name.removesuffix(".yaml"), **value}
        return value


class Axis(Part):
    """Settings that are tried in turn: one variant a label, for all recipes or for those named."""

    values: Annotated[dict[str, Overrides], BeforeValidator(_text_keys), Field(min_length=1)] = Field(
        description="label -> its overrides, `key.path=value`"
    )
    recipes: tuple[str, ...] | None = Field(None, description="names of the recipes it applies to; null: all")


class SuiteSample(Part):
    """A suite, or a fixed sample of it."""

    suite: str = Field(description='folder in BEIR layout, or "source:dev" / "source:test" of the training data')
    max_queries: int | None = Field(None, ge=1, description="sample of queries; null: all")
    max_documents: int | None = Field(None, ge=1, description="those of `keep`, then others; null: all")
    keep: Literal["judged", "relevant"] = Field(
        "judged", description="documents that are always kept: all judged ones, or only those judged relevant"
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="chooses the fixed order, and so the sample")


class Top(Part):
    """More seeds for the best recipes by dev score, and for the control."""

    count: int = Field(ge=1, description="number of recipes")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = Field(description="seeds of each")


class Stop(Part):
    """Stop a recipe if the 95% interval of its paired difference to the control's dev score is below -margin at this
    share of the budget. Applies to the search of learning rates, never to the control."""

    after_share: float | None = Field(None, gt=0, lt=1, description="when the rule looks; null: at the end of `search`")
    margin: float | None = Field(None, gt=0, description="tolerated distance; null: `smallest_effect`")


class Search(Part):
    """Choose the learning rate after fewer rows; the best is then trained from the start with the whole budget."""

    rows: int = Field(ge=1, description="rows for each learning rate")


class Rows(Part):
    """Equal budget: the same rows in the same order, for every recipe."""

    rows: int = Field(ge=1, description="number of rows")


class Matrix(Part):
    """Everything about a matrix of runs."""

    name: Name = Field(description="name of the matrix and of its folder")
    hypothesis: str = Field("", description="what should move, by how much, on what")
    variables: dict[str, str | None] = Field({}, description="${NAME} elsewhere in this file; null: must be set")
    recipes: Annotated[tuple[Annotated[Entry, BeforeValidator(_spelled_out)], ...], Field(min_length=1)] = Field(
        description="recipes to compare; a path or a shipped name is enough"
    )
    bases: Annotated[tuple[str | None, ...], Field(min_length=1)] = Field((None,), description="null: the recipe's own")
    axes: dict[str, Axis] = Field({}, description="cross product of their labels")
    overrides: Overrides = Field((), description='for all recipes; "stages.*." is every contrast stage')
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field((), description="empty: each recipe's own")
    search: Search | None = Field(None, description="null: each rate has the whole budget")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = Field(
        (0,), description="seeds of every recipe"
    )
    top: Top | None = Field(None, description="more seeds for the best; null: none")
    budget: Rows = Field(description="what each run trains on")
    dev: Annotated[tuple[SuiteSample, ...], Field(min_length=1, description="suites for choices")]
    final: Annotated[tuple[SuiteSample, ...], Field(min_length=1, description="suites that no choice sees")]
    metric: Literal["ndcg@10", "recall@100", "mrr@10", "map"] = Field(
        "ndcg@10", description="metric of choices and comparisons"
    )
    control: str = Field(description="the recipe (or variant) that all others are compared with")
    smallest_effect: float | None = Field(None, gt=0, description="smallest difference that matters")
    stop: Stop | None = Field(None, description="when to stop a recipe early; null: never")
    references: tuple[Literal["bm25", "untrained"], ...] = Field(
        ("bm25", "untrained"), description="further rows of the table, for orientation; they are not compared"
    )
    minutes: float | None = Field(None, gt=0, description="limit of all runs; others are listed as not run")
    equal_rows: bool = Field(True, description="refuse recipes that would train on other rows than the control")
    save_models: bool = Field(False, description="export the model of each final run, and evaluate the export")

    @model_validator(mode="after")
    def _consistent(self) -> "Matrix":
        for key, values in (("learning_rates", self.learning_rates), ("seeds", self.seeds), ("bases", self.bases)):
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: a value is given twice")
        names = [entry.name for entry in self.recipes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"recipes: two are called {twice!r}; give one a name of its own (name: ...)")
        for label, axis in self.axes.items():
            unknown = set(axis.recipes or ()) - set(names)
            if unknown:
                raise ValueError(f"axes.{label}.recipes: {sorted(unknown)[0]!r} is none of {', '.join(names)}")
        self._check_rule()
        return self

    def _check_rule(self) -> None:
        searching = self.search is not None and len(self.learning_rates) > 1
        if self.search is not None and self.search.rows >= self.budget.rows:
            raise ValueError("search.rows: less than budget.rows is needed; leave search out to give each rate all")
        if self.stop is None:
            return
        if self.stop.margin is None and self.smallest_effect is None:
            raise ValueError("stop needs smallest_effect or stop.margin: how far below the control is too far")
        if searching and self.stop.after_share is not None:
            raise ValueError("stop.after_share: with search the rule looks at the end of each search; leave it out")
        if not searching and self.stop.after_share is None:
            raise ValueError("stop.after_share: say after which share of the budget the rule looks")


def load_matrix(path: str | Path, overrides: Sequence[str] = ()) -> Matrix:
    """The matrix in a YAML file, with `key.path=value` overrides and its variables filled in.

    Raises:
        InputError: the file is missing or not YAML, a key is unknown (with a suggestion), a variable is not set.
    """
    return load_with_variables(Matrix, path, "matrix file", overrides)


def dump_matrix(matrix: Matrix) -> str:
    """The whole matrix as YAML, defaults spelled out."""
    text: str = yaml.safe_dump(matrix.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return text
