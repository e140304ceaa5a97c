"""Average models that were trained from one start ("model soup", Wortsman et al. 2022, arXiv:2203.05482).

The result is a model folder like that of a run, and a run in the ledger: it inherits the training data of its
ingredients, so their contamination marks are its own, and its recipe must be frozen before a final suite is opened.
"""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.files import atomic_folder, home, sha256_text
from gemma4vec.ledger.environment import environment
from gemma4vec.ledger.lineage import INHERITED, WEIGHTS, union
from gemma4vec.ledger.recording import record_run
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.save.model_lineage import lineage_of_folder
from gemma4vec.pipeline.soup.card import soup_card
from gemma4vec.pipeline.soup.dev_scores import DevScore, score_model
from gemma4vec.pipeline.soup.greedy import choose_greedily, members_of
from gemma4vec.pipeline.soup.ingredients import Ingredient, common_start, start_name, start_parts
from gemma4vec.pipeline.soup.library_merge import merge_by_library, needs_start
from gemma4vec.pipeline.soup.mean import check_weights, equal_weights, mean_blocks, measure_deltas
from gemma4vec.pipeline.soup.plan_soup import GREEDY, OWN_METHODS, UNIFORM, SoupPlan, control_folder, plan_soup
from gemma4vec.pipeline.soup.record import CONTROL, SoupRecord, describe_recipe
from gemma4vec.pipeline.soup.tensors import TensorFolder
from gemma4vec.pipeline.soup.write_folder import BlocksOf, write_soup_folder
from gemma4vec.training.engine.made_from import MADE_FROM
from gemma4vec.training.outcome import record_outcome

logger = logging.getLogger(__name__)


def make_soup(
    ingredients: Sequence[str | Path],
    out: Path | None = None,
    *,
    method: str = UNIFORM,
    weights: Sequence[float] | None = None,
    dev: Sequence[str | Path] = (),
    start_weight: float = 0.0,
    control: bool = False,
    parameters: Mapping[str, float] | None = None,
) -> SoupRecord:
    """Average finished models that were trained from one start.

    Everything is checked first. Weights are averaged in float64 and written as fp32, a block of one tensor at a time.

    Args:
        ingredients: run folders, run ids or model folders.
        out: the model's folder, which must not exist; None: `model/` in the soup's own run folder.
        method: "uniform"; "weights"; "greedy", which adds the next best model while the dev score does not fall; or a
            method of mergekit's, such as "slerp".
        weights: one for each ingredient, with a sum of one, for the method "weights".
        dev: suites that the ingredients and the soup are scored on; greedy chooses by the mean of their main metrics.
        start_weight: share of the common start in the result, in [0, 1): WiSE-FT (Wortsman et al. 2021,
            arXiv:2109.01903).
        control: also write one ingredient whose change from the start is shrunken to the norm of the soup's, to
            `OUT-control`: is the soup's effect only that it changed less? It is the best ingredient on `dev`, else the
            first.
        parameters: of a method of mergekit's.

    Raises:
        InputError: one line: ingredients that have no mean, weights, suites or folders that cannot be used.
        WorkError: the disk is full.
    """
    plan = plan_soup(ingredients, out, method, weights, dev, start_weight, control, parameters or {})
    names = [one.name for one in plan.ingredients]
    deltas = measure_deltas([one.tensors for one in plan.ingredients], names, plan.start)
    if deltas is None:
        logger.info("the weights of the common start cannot be read here, so changes from it are not measured")
    given = equal_weights(len(names)) if method == UNIFORM else None
    if weights is not None:
        given = check_weights(weights, names)
    chosen_by = [suite.fingerprint for suite in plan.suites] if method == GREEDY else []
    recipe = describe_recipe(method, plan.ingredients, given, start_weight, parameters or {}, chosen_by)
    run = _start_run(f"soup-{method}", recipe, plan)
    began = time.monotonic()
    with record_outcome(run):
        scores = [score_model(one.folder, plan.suites, one.run, run, one.name) for one in _scored(plan)]
        record = SoupRecord(
            folder=out or run.model,
            run_id=run.run_id,
            method=method,
            names=tuple(names),
            weights=tuple(given or ()),
            start=start_name(common_start(plan.ingredients)),
            start_weight=start_weight,
            deltas=deltas,
            ingredient_scores=tuple(scores),
        )
        if method == GREEDY:
            trials = choose_greedily([score.mean for score in scores], partial(_score_trial, plan, run))
            members = members_of(trials)
            mixed = [1.0 / len(members) if number in members else 0.0 for number in range(len(names))]
            record = replace(record, trials=tuple(trials), weights=tuple(mixed))
        if method in OWN_METHODS:
            record = _measured(record, plan)
            _write(run, plan, record, plan.blocks(record.weights))
        else:
            with _merged(plan, run, method, parameters or {}) as merged:
                change = measure_deltas([merged], [f"the result of {method}"], plan.start)
                if change is not None and deltas is not None:
                    norm = change.norms[0]
                    record = replace(record, norm=norm, shrinkage=deltas.shrinkage(equal_weights(len(names)), norm))
                _write(run, plan, record, partial(mean_blocks, [merged], [1.0]))
        if plan.suites:
            record = replace(record, score=score_model(record.folder, plan.suites, run, run, run.run_id))
        run.event("finished", seconds=time.monotonic() - began)
        run.update_manifest(soup=record.as_json())
    if control:
        record = replace(record, control=_make_control(plan, record))
    return record


def _scored(plan: SoupPlan) -> list[Ingredient]:
    return plan.ingredients if plan.suites else []


def _measured(record: SoupRecord, plan: SoupPlan) -> SoupRecord:
    """Add the norm of the soup's change and its share of the ingredients'."""
    if record.deltas is None:
        return record
    scaled = [(1.0 - plan.start_weight) * weight for weight in record.weights]
    return replace(record, norm=record.deltas.norm_of(scaled), shrinkage=record.deltas.shrinkage(scaled))


def _score_trial(plan: SoupPlan, run: RunFolder, members: Sequence[int]) -> float:
    """Score the mean of these ingredients; the ledger records the looks as the soup's own."""
    mixed = [1.0 / len(members) if number in members else 0.0 for number in range(len(plan.ingredients))]
    name = f"trial-{len(members)}-{plan.ingredients[members[-1]].name}"
    with _scratch(run, "trial") as folder:
        about = {"trial": [plan.ingredients[member].name for member in members]}
        write_soup_folder(folder, plan.ingredients, plan.blocks(mixed), name=run.run_id, soup=about, card="")
        return score_model(folder, plan.suites, run, run, name, keep=False).mean


@contextlib.contextmanager
def _scratch(run: RunFolder, name: str) -> Iterator[Path]:
    """A folder within the run, on the disk that was checked, which is removed at the end."""
    folder = run.path / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _merged(plan: SoupPlan, run: RunFolder, method: str, parameters: Mapping[str, float]) -> Iterator[TensorFolder]:
    """The model that the library merges."""
    with contextlib.ExitStack() as stack:
        folder: Path | None = None
        if needs_start(method) and plan.start is not None:
            folder = stack.enter_context(_scratch(run, "start"))
            start = partial(mean_blocks, [plan.start], [1.0])
            write_soup_folder(folder, plan.ingredients, start, name="start", soup={}, card="")
        place = stack.enter_context(_scratch(run, "merged"))
        yield merge_by_library(plan.ingredients, method, folder, parameters, place)


def _start_run(name: str, recipe: Mapping[str, Any], plan: SoupPlan) -> RunFolder:
    """Make the run folder that the ledger knows a soup by."""
    used = plan.ingredients
    made_from = start_parts(used) | {
        f"soup.{number}": {"name": one.name, "path": str(one.folder.resolve()), "weights": one.weights}
        for number, one in enumerate(used)
    }
    run = RunFolder.create(
        home(),
        name,
        None,
        recipe_id=sha256_text("soup", json.dumps(recipe, sort_keys=True))[:12],
        status="started",
        parents=[one.name for one in used],
        environment=environment(),
        base=used[0].manifest.get("base"),
        data={},
        soup={"recipe": dict(recipe)},
        **{
            MADE_FROM: made_from,
            INHERITED: union(lineage_of_folder(one.folder, one.weights, one.name) for one in used).as_json(),
        },
    )
    record_run(run)
    return run


def _write(run: RunFolder, plan: SoupPlan, record: SoupRecord, blocks: BlocksOf) -> None:
    """Write the model's folder, whole or not at all; the run knows its weights before the folder is there."""
    logger.info(f"writing {record.folder}")
    with atomic_folder(record.folder) as folder:
        weights = write_soup_folder(
            folder,
            plan.ingredients,
            blocks,
            name=run.run_id,
            soup=record.settings(),
            card=soup_card(record, plan.ingredients),
        )
        run.update_manifest(**{WEIGHTS: weights}, soup=record.as_json(), ended={"by": record.method})
        record_run(run)
    if record.folder != run.model:  # commands that name the run find its model
        with contextlib.suppress(OSError):
            run.model.symlink_to(record.folder.resolve(), target_is_directory=True)


def _make_control(plan: SoupPlan, soup: SoupRecord) -> SoupRecord:
    """Write start + r (ingredient - start), where r is the soup's shrinkage."""
    if plan.start is None or soup.deltas is None or soup.shrinkage is None:
        raise InputError("--control: no ingredient has changed from the start, so there is nothing to shrink")
    ratio, norms = soup.shrinkage, soup.deltas.norms
    changed = [number for number, norm in enumerate(norms) if norm > 0]
    ranked = sorted(changed, key=lambda i: -soup.ingredient_scores[i].mean) if soup.ingredient_scores else changed
    chosen = ranked[0]
    one = plan.ingredients[chosen]
    shrunken = replace(plan, ingredients=[one], out=control_folder(plan.out))
    recipe = describe_recipe(CONTROL, [one], [ratio], 1.0 - ratio, {}, [])
    run = _start_run("soup-control", recipe, shrunken)
    record = SoupRecord(
        folder=shrunken.out or run.model,
        run_id=run.run_id,
        method=CONTROL,
        names=(one.name,),
        weights=(ratio,),
        start=soup.start,
        start_weight=1.0 - ratio,
        norm=ratio * norms[chosen],
        shrinkage=ratio,
    )
    with record_outcome(run):
        _write(run, shrunken, record, partial(mean_blocks, [one.tensors, plan.start], [ratio, 1.0 - ratio]))
        score: DevScore | None = None
        if plan.suites:
            score = score_model(record.folder, plan.suites, run, run, run.run_id)
        record = replace(record, score=score)
        run.event("finished", seconds=0.0)
        run.update_manifest(soup=record.as_json())
    return record
