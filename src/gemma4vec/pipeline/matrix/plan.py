"""The cells of a matrix file, and the next job given the finished ones.

A *variant* is a recipe with a base and one label of each axis. A *cell* is a variant with a learning rate and a seed:
one run folder. The next job is a pure function of the plan and the records on disk, so a killed matrix continues with
the same call.
"""

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import slug
from gemma4vec.pipeline.matrix.state import Cell, Record
from gemma4vec.reading.yaml_values import read_text
from gemma4vec.recipe.find import find_recipe
from gemma4vec.recipe.load import dump_recipe, read_tree, validate
from gemma4vec.recipe.plans.matrix import Entry, Matrix
from gemma4vec.recipe.schema import Recipe


@dataclass(frozen=True)
class Variant:
    """A recipe with a base and one label of each axis; `overrides` has all changes to the recipe's file."""

    name: str
    recipe: str
    base: str | None
    axes: dict[str, str]
    file: Path
    overrides: tuple[str, ...]

    def build(self, matrix: Matrix, rate: float | None, seed: int, *, search: bool = False) -> Recipe:
        """Build the recipe of a cell; `search`: with the row budget of the learning-rate search.

        Raises:
            InputError: an unknown key or a wrong value.
        """
        text, where = read_text(self.file, "recipe"), f"recipe {self.name} ({self.file})"
        rows = matrix.search.rows if search and matrix.search else matrix.budget.rows
        shares = [matrix.stop.after_share] if matrix.stop and matrix.stop.after_share else []
        changes = [
            *self.overrides,
            f"name={json.dumps(slug(self.name))}",
            f"seed={seed}",
            f"stages.*.budget={{rows: {rows}}}",
            "stages.*.evaluation.every_steps=null",
            "stages.*.evaluation.export=last",
            "stages.*.evaluation.stop=null",  # the matrix has its own stop rule
            "stages.*.evaluation.background=false",
            f"stages.*.evaluation.at_shares={shares}",
        ]
        if rate is not None:
            changes.append(f"stages.*.optimizer.learning_rate={rate!r}")
        stages = _contrast_stages(read_tree(text, where))
        spelled_out = [one for change in changes for one in _at_each_stage(change, stages)]
        return validate(Recipe, read_tree(text, where, spelled_out), where)


@dataclass(frozen=True)
class Job:
    """One unit of work: train a cell and score it on dev, with `final` also on the final suites."""

    cell: Cell
    final: bool
    why: str


@dataclass(frozen=True)
class Plan:
    """The variants of a matrix; `controls` maps each to its control."""

    matrix: Matrix
    variants: dict[str, Variant]
    controls: dict[str, str] = field(default_factory=dict)

    @property
    def rates(self) -> tuple[float | None, ...]:
        """The learning rates to try for each variant."""
        return self.matrix.learning_rates or (None,)

    @property
    def searching(self) -> bool:
        """Whether separate cells choose the learning rate, at part of the budget."""
        return self.matrix.search is not None and len(self.rates) > 1

    def grid(self, variant: str) -> list[Cell]:
        """The cells that decide a variant's learning rate."""
        return [Cell(variant, rate, self.matrix.seeds[0], self.searching) for rate in self.rates]

    def recipe(self, cell: Cell) -> Recipe:
        """The recipe of a cell."""
        return self.variants[cell.variant].build(self.matrix, cell.rate, cell.seed, search=cell.search)


def make_plan(matrix: Matrix, folder: Path) -> Plan:
    """Read every recipe of a matrix; relative paths are looked up in `folder`, the matrix file's, first.

    Raises:
        InputError: a recipe is missing or invalid, the control is unknown, or recipes would see different rows.
    """
    found = [variant for entry in matrix.recipes for variant in _variants(matrix, entry, folder)]
    controls = {variant.name: _control_of(variant, found, matrix.control) for variant in found}
    # Controls first: the stop rule compares with them.
    ordered = sorted(found, key=lambda variant: variant.name not in controls.values())
    plan = Plan(matrix, {variant.name: variant for variant in ordered}, controls)
    for name in plan.variants:
        recipe = plan.recipe(plan.grid(name)[0])
        if not any(stage.task.kind == "contrast" for stage in recipe.stages):
            raise InputError(f"recipe {name} has no contrast stage; a matrix compares contrast stages only")
        if matrix.equal_rows:
            _check_equal_rows(recipe, plan.recipe(plan.grid(controls[name])[0]), name, controls[name])
    return plan


def choose_cell(plan: Plan, variant: str, records: Mapping[str, Record]) -> Cell | None:
    """The cell with a variant's best learning rate, first seed and whole budget; None if no rate has a dev score."""
    best = find_best_cell(plan, variant, records)
    return None if best is None else replace(best, search=False)


def find_best_cell(plan: Plan, variant: str, records: Mapping[str, Record]) -> Cell | None:
    """The cell of a variant's grid with the best dev score; None if no cell has one."""
    scored = [cell for cell in plan.grid(variant) if _is_eligible(records.get(cell.key))]
    return max(scored, key=lambda cell: records[cell.key].dev or 0.0, default=None)


def next_job(plan: Plan, records: Mapping[str, Record], skipped: Collection[str] = ()) -> Job | None:
    """The next job, None if all are done; `skipped` has keys of cells not to run."""
    return next((job for job in list_open_jobs(plan, records) if job.cell.key not in skipped), None)


def list_open_jobs(plan: Plan, records: Mapping[str, Record]) -> Iterator[Job]:
    """All unfinished jobs known so far. Jobs that depend on the best recipes appear once those are known."""
    for job in _list_jobs(plan, records):
        record = records.get(job.cell.key)
        if record is None or not (record.ended or (record.trained and not job.final)):
            yield job


def list_expected_cells(plan: Plan, records: Mapping[str, Record]) -> list[tuple[str, str, float | None, int, str]]:
    """(key, variant, rate, seed, why) of every cell, in order. Cells that depend on a choice that is still open, of a
    learning rate or of the best recipes, are placeholders."""
    found = {
        job.cell.key: (job.cell.variant, job.cell.rate, job.cell.seed, job.why) for job in _list_jobs(plan, records)
    }
    undecided = [variant for variant in plan.variants if not _is_grid_complete(plan, variant, records)]
    if plan.searching:
        for variant in undecided:
            found[f"{variant}, whole budget"] = (variant, None, plan.matrix.seeds[0], "whole budget, at the best rate")
    for seed in plan.matrix.seeds[1:]:
        for variant in undecided:
            if choose_cell(plan, variant, records) is None:
                found[f"{variant}, seed {seed}"] = (variant, None, seed, "seed, at the chosen rate")
    top = plan.matrix.top
    if top is not None and undecided:
        controls = [name for name in dict.fromkeys(plan.controls.values()) if not choose_cell(plan, name, records)]
        for seed in [seed for seed in top.seeds if seed not in plan.matrix.seeds]:
            for place in range(1, top.count + 1):
                found[f"top {place}, seed {seed}"] = (f"top {place}", None, seed, "seed of the top")
            for control in controls:
                found[f"{control}, seed {seed}"] = (control, None, seed, "control, unless it is one of the top")
    return [(key, *cell) for key, cell in found.items()]


def _list_jobs(plan: Plan, records: Mapping[str, Record]) -> Iterator[Job]:
    """All jobs in order: each variant's grid and its final evaluation, further seeds of all, further seeds of the best.

    Because the final evaluation follows the grid directly, a matrix that is cut short has complete table rows."""
    single = len(plan.rates) == 1
    for variant in plan.variants:
        for cell in plan.grid(variant):
            yield Job(cell, single, "train" if single else "learning rate")
        best = choose_cell(plan, variant, records)
        if not single and best is not None and _is_grid_complete(plan, variant, records):
            yield Job(best, True, "whole budget" if plan.searching else "final")
    for seed in plan.matrix.seeds[1:]:
        for variant in plan.variants:
            yield from _more(plan, variant, seed, records, "seed")
    if plan.matrix.top is not None:
        names = list_top_variants(plan, records)
        for seed in plan.matrix.top.seeds:
            for variant in names:
                yield from _more(plan, variant, seed, records, "seed of the top")


def list_top_variants(plan: Plan, records: Mapping[str, Record]) -> list[str]:
    """The variants with the best dev scores, and the controls, in the plan's order."""
    assert plan.matrix.top is not None
    scores = {}
    for variant in plan.variants:
        cell = choose_cell(plan, variant, records)
        if cell is not None and _is_eligible(records.get(cell.key)):
            scores[variant] = records[cell.key].dev or 0.0
    best = sorted(scores, key=lambda variant: -scores[variant])
    wanted = {*best[: plan.matrix.top.count], *plan.controls.values()}
    return [variant for variant in plan.variants if variant in wanted]


def _more(plan: Plan, variant: str, seed: int, records: Mapping[str, Record], why: str) -> Iterator[Job]:
    best = choose_cell(plan, variant, records)
    if best is not None:
        yield Job(Cell(variant, best.rate, seed), True, why)


def _is_grid_complete(plan: Plan, variant: str, records: Mapping[str, Record]) -> bool:
    """Whether every cell of the grid has ended or has a dev score, so that the best rate is final."""
    return all((record := records.get(cell.key)) and (record.ended or record.trained) for cell in plan.grid(variant))


def _is_eligible(record: Record | None) -> bool:
    return record is not None and record.dev is not None and record.status != "stopped"


def _variants(matrix: Matrix, entry: Entry, folder: Path) -> list[Variant]:
    axes = {name: axis for name, axis in matrix.axes.items() if axis.recipes is None or entry.name in axis.recipes}
    file = _find_recipe(entry.recipe, folder)
    found = []
    for base in matrix.bases:
        for labels in itertools.product(*(axis.values for axis in axes.values())):
            picked = dict(zip(axes, labels, strict=True))
            name = " ".join([entry.name, *(f"{axis}={label}" for axis, label in picked.items())])
            if len(matrix.bases) > 1:
                name += f" @{Path(base).name if base else 'own base'}"
            changes = [*matrix.overrides, *entry.overrides]
            changes += [change for axis, label in picked.items() for change in axes[axis].values[label]]
            changes += [f"model.base={json.dumps(base, ensure_ascii=False)}"] if base else []
            found.append(Variant(name, entry.name, base, picked, file, tuple(changes)))
    return found


def _find_recipe(spec: str, folder: Path) -> Path:
    """Find a recipe's file: next to the matrix file, below the working folder, or shipped with the package."""
    ending = spec.endswith((".yaml", ".yml"))
    for place in (folder, Path()):
        for name in [spec] if ending else [spec, f"{spec}.yaml"]:
            if (place / name).is_file():
                return (place / name).resolve()
    try:
        return find_recipe(spec.removesuffix(".yaml"))
    except InputError as error:
        raise InputError(f"recipes: {error}") from None


def _control_of(variant: Variant, variants: Sequence[Variant], control: str) -> str:
    """The control of `variant`: the variant or recipe named `control`, on the same base if there are several."""
    named = [one for one in variants if one.name == control] or [one for one in variants if one.recipe == control]
    named = [one for one in named if one.base == variant.base] or named
    if len(named) == 1:
        return named[0].name
    if not named:
        raise InputError(f"control: {control!r} is unknown; use one of {', '.join(one.name for one in variants)}")
    raise InputError(
        f"control: {control!r} has {len(named)} variants; use one of {', '.join(one.name for one in named)}"
    )


def list_row_settings(recipe: Recipe) -> list[dict[str, Any]]:
    """The settings of each contrast stage that decide, with the seed, which rows it sees in which order
    (`data.batching.batches`)."""
    return [
        {
            "data": [source.model_dump(mode="json") for source in stage.data],
            "batch.rows": stage.batch.rows,
            "batch.accumulate": stage.batch.accumulate,
            "batch.group_rows": stage.batch.group_rows,
            "batch.clusters": stage.batch.clusters.model_dump(mode="json") if stage.batch.clusters else None,
            "budget": stage.budget.model_dump(mode="json"),
        }
        for stage in recipe.stages
        if stage.task.kind == "contrast"
    ]


def _check_equal_rows(recipe: Recipe, control: Recipe, name: str, control_name: str) -> None:
    ours, theirs = list_row_settings(recipe), list_row_settings(control)
    if len(ours) != len(theirs):
        raise InputError(f"recipe {name} has {len(ours)} contrast stages and {control_name} {len(theirs)}: " + _UNEQUAL)
    for mine, other in zip(ours, theirs, strict=True):
        for key in mine:
            if mine[key] != other[key]:
                raise InputError(
                    f"recipe {name} has {key} {json.dumps(mine[key])[:120]} and the control {control_name} "
                    f"{json.dumps(other[key])[:120]}: {_UNEQUAL}"
                )


_UNEQUAL = "not the same rows; set one value for all in overrides (stages.*.KEY=VALUE), or set equal_rows: false"


def _contrast_stages(tree: Mapping[str, Any]) -> list[int]:
    """Numbers of the contrast stages in a recipe that is not yet validated."""
    stages = tree.get("stages")
    kinds = [
        ((stage.get("task") or {}).get("kind", "contrast") if isinstance(stage, dict) else "contrast")
        for stage in (stages if isinstance(stages, list) else [])
    ]
    return [number for number, kind in enumerate(kinds) if kind == "contrast"]


def _at_each_stage(change: str, stages: Sequence[int]) -> list[str]:
    """Expand `stages.*.KEY=VALUE` to each contrast stage; return other changes unchanged."""
    if not change.startswith("stages.*."):
        return [change]
    return [change.replace("stages.*.", f"stages.{number}.", 1) for number in stages]


def dump_variants(plan: Plan) -> dict[str, str]:
    """Each variant's recipe as YAML, without its learning rates; it must not change when a matrix continues."""
    return {name: dump_recipe(variant.build(plan.matrix, None, 0)) for name, variant in plan.variants.items()}
