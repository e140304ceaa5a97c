"""Write the remedies for a slice: recipes that differ in one thing each, with a claim, and their control arms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gemma4vec.data.loading.resolve_names import load_source
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.files import atomic_folder, atomic_write, check_writable, write_json
from gemma4vec.inspection.confirm import OpenModel, OpenSuite, rule_of
from gemma4vec.inspection.exposures import count_openings, refuse_spent, remedy_key, verdicts
from gemma4vec.inspection.inspection_files import DOCUMENTS, finite, load_columns, load_inspection
from gemma4vec.inspection.predicates import Predicate, parse_predicate
from gemma4vec.inspection.remedy.forecast import forecast_gain
from gemma4vec.inspection.remedy.matching import facts_for_rows, match_rows, needs_model
from gemma4vec.inspection.remedy.remedies import REMEDIES
from gemma4vec.inspection.remedy.setting import MatchedRows, Remedy, Setting
from gemma4vec.inspection.saved.saved_slices import known_slice
from gemma4vec.inspection.token_counts import TokenCounter, token_counter
from gemma4vec.inspection.topics.space import with_topics
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.recipe.load import dump_recipe, load_recipe
from gemma4vec.recipe.schema import Contrast, Recipe, Source
from gemma4vec.recipe.stop_rule import Claim

ABOUT = "remedies.json"
LEAST_EFFECT = 0.005
NOT_CONFIRMED = "the slice is not confirmed; it may be luck: gemma4vec inspect confirm {}"


def write_remedies(
    name: str,
    folder: Path,
    recipe: Recipe,
    out: Path,
    open_model: OpenModel,
    open_suite: OpenSuite,
    *,
    sources: Sequence[Source] = (),
    stage: int | None = None,
    times: int = 3,
    effect: float | None = None,
    margin: float = 0.01,
    seed: int = 0,
) -> dict[str, Any]:
    """Write `out`: a recipe and a control for each remedy that applies, and `remedies.json`, which is returned.

    Args:
        name: a slice's id, or a rule.
        folder: of the inspection.
        recipe: that the inspected model was trained with, or another one to change.
        sources: further ones that may be added.
        stage: number of the contrast to change; None is the last one.
        times: how often a pass reads a re-weighted row.
        effect: smallest gain to claim; None is half of the gap.
        margin: largest loss elsewhere.
        seed: of the control arms' random rows.

    Raises:
        InputError: an unknown, refuted or spent slice; a suite that is another one now; no contrast in the recipe; rows
            of token ids; an `out` that has files.
    """
    about, slices = load_inspection(folder)
    known = known_slice(name, about, slices)
    rule, _ = rule_of(name, known, about)
    predicate, contents = parse_predicate(rule), about["suite"]["fingerprint"]
    notes = _check_status(name, rule, known, about)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} has files already, which recipes may name; choose another --out")
    check_writable(out)
    number = _stage_of(recipe, stage)
    suite = open_suite(about["suite"]["open"])
    check_choice("inspect remedy", suite)
    if suite.fingerprint != contents:
        raise InputError(f"{suite.name} has changed since the inspection in {folder}; inspect again")
    columns = with_topics(load_columns(folder), predicate, suite.queries)
    counter = token_counter(open_model(about["model"]["open"]).model) if needs_model(predicate) else None
    wanted = [*(source for source in recipe.stages[number].data if not source.plain or source.own_positives), *sources]
    matched = _match(wanted, predicate, suite, counter)
    if not predicate.mask(columns).any():
        raise InputError(f"no query of {suite.name} is in the slice '{rule}', so no remedy can be verified on it")
    setting = Setting(
        predicate,
        recipe,
        number,
        matched[: len(wanted) - len(sources)],
        matched[len(wanted) - len(sources) :],
        columns,
        _tokens(folder),
        times,
        seed,
        out.absolute(),
    )
    claim = _claim(about, suite, rule, _effect(effect, known), margin)
    forecast = forecast_gain(columns, about, predicate, recipe, count_openings(contents) + 1)
    if forecast.gain > claim.smallest_effect:
        shows = f"gains from {forecast.gain:.3f}" if math.isfinite(forecast.gain) else "no gain at all"
        notes.append(f"the claim of {claim.smallest_effect:g} may be too small: the sealed half shows {shows}")
    with atomic_folder(out) as made:
        offers = [write(setting, made) for write in REMEDIES.values()]
        written = [_write(made, setting, claim, suite.name, one) for one in offers]
        found = {
            "slice": None if known is None else known["id"],
            "rule": rule,
            "words": predicate.words(),
            "recipe": recipe.name,
            "claim": claim.model_dump(mode="json"),
            "shows": forecast.gain,
            "spread_of": forecast.basis,
            "sources": [_facts(one) for one in setting.own],
            "other_sources": sorted(map(_facts, setting.others), key=lambda one: -float(one["share"])),
            "remedies": written,
            "notes": notes,
        }
        stored = finite(found)
        write_json(made / ABOUT, stored)
    return {"folder": str(out), **stored}


def _check_status(name: str, rule: str, known: Mapping[str, Any] | None, about: Mapping[str, Any]) -> list[str]:
    """Refuse what was refuted or spent; note what was not confirmed."""
    found = verdicts(about["suite"]["fingerprint"])
    refuse_spent(rule, about["suite"]["name"], found.get(remedy_key(rule, about["suite"]["fingerprint"])))
    opened = found.get(known["id"]) if known is not None else None
    if opened is not None and opened.word == "refuted":
        raise InputError(f"the slice '{rule}' was refuted on {opened.day}: the gap was luck, and needs no remedy")
    return [] if opened is not None else [NOT_CONFIRMED.format(name if known is not None else f"'{rule}'")]


def _stage_of(recipe: Recipe, stage: int | None) -> int:
    contrasts = [number for number, one in enumerate(recipe.stages) if isinstance(one.task, Contrast)]
    if not contrasts or (stage is not None and stage not in contrasts):
        which = f"stage {stage} is none" if stage is not None else "it has none"
        raise InputError(
            f"recipe {recipe.name}: a remedy changes a contrast, and {which}; name its number with --stage"
        )
    return contrasts[-1] if stage is None else stage


def _match(
    sources: Sequence[Source], predicate: Predicate, suite: RetrievalSuite, counter: TokenCounter | None
) -> list[MatchedRows]:
    found: list[MatchedRows] = []
    for source in sources:
        rows: Sequence[Row]
        rows, _ = load_source(source.model_copy(update={"repeat": None}))
        facts = facts_for_rows(predicate, suite, rows, counter)
        with ProgressBar(f"match {source.name}", "rows") as bar:
            found.append(MatchedRows(source, rows, match_rows(rows, predicate, facts, bar)))
    return found


def _tokens(folder: Path) -> list[int]:
    try:
        column = pq.read_table(folder.absolute() / DOCUMENTS, columns=["tokens"])["tokens"].to_pylist()
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{folder / DOCUMENTS} is damaged; inspect again") from error
    return [int(one) for one in column if one is not None]


def _effect(effect: float | None, known: Mapping[str, Any] | None) -> float:
    if effect is not None:
        return effect
    if known is None:
        raise InputError("a rule of your own has no measured gap; say what gain you claim with --effect")
    return max(LEAST_EFFECT, round(abs(float(known["gap"])) / 2, 3))


def _claim(about: Mapping[str, Any], suite: RetrievalSuite, rule: str, effect: float, margin: float) -> Claim:
    opened = about["suite"]["open"]
    spec = str(opened.get("spec") or suite.name)
    spec = str(Path(spec).resolve()) if Path(spec).exists() else spec
    try:
        return Claim(
            slice=rule,
            suite=spec,
            task=opened.get("task"),
            suite_fingerprint=suite.fingerprint,
            metric=about["metric"],
            smallest_effect=effect,
            not_worse_elsewhere=margin,
        )
    except ValueError as error:
        raise InputError(f"--effect {effect:g} and --margin {margin:g} must be between 0 and 1") from error


def _write(made: Path, setting: Setting, claim: Claim, suite: str, one: Remedy) -> dict[str, Any]:
    """Write the recipes of one remedy."""
    found: dict[str, Any] = {**asdict(one), "share": one.share, "recipe": None, "control_recipe": None}
    if one.changes is None:
        return found
    base = setting.recipe
    label = one.name.replace("_", "-")
    changed = load_recipe(base, one.changes)
    where = f"on {claim.slice} of {suite}"
    hypothesis = f"{one.words}: {claim.metric} gains {claim.smallest_effect:g} {where}"
    changed = changed.model_copy(update={"name": f"{base.name}-{label}", "claim": claim, "hypothesis": hypothesis})
    if one.control is not None:
        control, why = load_recipe(base, one.control), "equally many random rows"
    else:
        control, why = base.model_copy(update={"seed": base.seed + 1}), "the recipe as it is, with another seed"
    hypothesis = f"control of {changed.name}: {why}"
    control = control.model_copy(
        update={"name": f"{base.name}-{label}-control", "claim": None, "hypothesis": hypothesis}
    )
    for key, recipe, file in (
        ("recipe", changed, f"{label}.yaml"),
        ("control_recipe", control, f"{label}-control.yaml"),
    ):
        with atomic_write(made / file) as stream:
            stream.write(dump_recipe(recipe))
        found[key] = str(setting.out / file)
    return found


def _facts(one: MatchedRows) -> dict[str, Any]:
    return {
        "name": one.source.name,
        "rows": len(one.rows),
        "matching": one.count,
        "share": one.share if math.isfinite(one.share) else 0.0,
    }
