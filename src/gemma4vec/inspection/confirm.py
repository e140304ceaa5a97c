"""Open the sealed half for one slice, once, and say whether the gap is there too."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.inspection.exposures import record_opening, record_verdict, refuse_spent, remedy_key, verdicts
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.inspection_files import SLICES, held, load_columns, load_inspection, write_slices
from gemma4vec.inspection.predicates import parse_predicate
from gemma4vec.inspection.reading import read_model
from gemma4vec.inspection.saved.saved_slices import identity_of_stored, known_slice
from gemma4vec.inspection.sealed import SEALED
from gemma4vec.inspection.slices import View, slice_id
from gemma4vec.inspection.steps import Steps, known_step
from gemma4vec.inspection.topics.space import with_topics
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.statistics.slices.gap import SliceGap, slice_gap

ALPHA = 0.05
LEAST = 2  # sealed queries inside and outside
CONFIRMED, REFUTED = "confirmed", "refuted"
OpenModel = Callable[[Mapping[str, Any]], Subject]
OpenSuite = Callable[[Mapping[str, Any]], RetrievalSuite]


@dataclass(frozen=True)
class Confirmation:
    """What the sealed half says of a slice.

    Attributes:
        verdict: confirmed if the gap is below 0 with `p_family` at most .05, else refuted.
        found: the gap on the sealed half.
        proposed_gap: the gap on the open half; None for a rule that a person gave.
        p_family: p times the number of slices opened on these contents so far (`opened`), at most 1.
    """

    id: str
    rule: str
    view: View
    model: str
    against: str | None
    suite: str
    metric: str
    verdict: str
    found: SliceGap
    proposed_gap: float | None
    opened: int
    p_family: float

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), **asdict(self.found), "found": None}

    def sentence(self) -> str:
        """For a person."""
        one = self.found
        before = "" if self.proposed_gap is None else f" (open half: {self.proposed_gap:+.3f})"
        return (
            f"{self.verdict}: {self.rule}: {self.metric} gap {one.gap:+.3f} ({one.low:+.3f} to {one.high:+.3f}){before}"
            f" on {one.n_inside} sealed queries against {one.n_outside} others, p {one.p:.4f}, {self.p_family:.4f} as "
            f"slice {self.opened} that was opened on {self.suite}; such a test finds gaps from {one.detectable:.3f}"
        )


def find_slice(name: str, folder: Path | None = None) -> Path:
    """The folder of the inspection that proposed a slice.

    Args:
        name: the slice's id.
        folder: of an inspection; None looks below the outputs' folder.

    Raises:
        InputError: no inspection knows it.
    """
    if folder is not None:
        if not (folder / SLICES).is_file():
            raise InputError(f"{folder} is no inspection: it has no {SLICES}; make one with gemma4vec inspect")
        return folder
    for path in sorted([*home().glob(f"inspect/*/*/{SLICES}"), *home().glob(f"*/inspect/*/{SLICES}")]):
        with contextlib.suppress(InputError):  # a damaged one is not asked for
            if known_slice(name, *load_inspection(path.parent)) is not None:
                return path.parent
    raise InputError(
        f"no inspection below {home()} has a slice '{name}'; gemma4vec inspect lists them; "
        "a rule of your own needs --in DIR"
    )


def confirm(
    name: str, folder: Path, open_model: OpenModel, open_suite: OpenSuite, *, permutations: int = 10_000, seed: int = 0
) -> Confirmation:
    """Open the sealed half for one slice.

    Args:
        name: a slice's id, or a rule such as `overlap <= 0.3`, of the paired view where there is another model.
        folder: of the inspection.
        open_model, open_suite: open again what inspection.json names.

    Raises:
        InputError: an unknown slice or one that is spent; a suite or model that is another one now; too few sealed
            queries in the slice or outside; another process at work in the folder.
        WorkError: the ledger cannot record it; nothing was opened then.
    """
    with held(folder):
        about, slices = load_inspection(folder)
        known = known_slice(name, about, slices)
        rule, view = rule_of(name, known, about)
        models = [about["model"], *([about["against"]] if about["against"] is not None else [])]
        fingerprints = [one["fingerprint"] for one in models]
        key = known["id"] if known is not None else slice_id(rule, view, identity_of_stored(about))
        contents = about["suite"]["fingerprint"]
        for mark in (key, remedy_key(rule, contents)):
            refuse_spent(rule, about["suite"]["name"], verdicts(contents).get(mark))
        suite = open_suite(about["suite"]["open"])
        check_choice("inspect confirm", suite)  # it may be final by now
        if suite.fingerprint != contents:
            raise InputError(f"{suite.name} has changed since the inspection in {folder}; inspect again")
        predicate = parse_predicate(rule)
        columns = with_topics(load_columns(folder), predicate, suite.queries)
        sealed_N = np.array([half == SEALED for half in columns["half"]])
        inside_N = predicate.mask(columns) & sealed_N
        _refuse_too_small(rule, int(inside_N.sum()), int(sealed_N.sum()))
        metric = about["metric"]
        of_slice = {"suite": suite.name, "suite_fingerprint": contents, "slice": key, "rule": rule, "view": view}
        of_slice |= {"metric": f"{metric} in {rule}", "a": models[0]["name"], "fingerprint_a": fingerprints[0]}
        of_slice |= {"b": models[-1]["name"] if view == "paired" else "the other queries"}
        of_slice |= {"fingerprint_b": fingerprints[-1] if view == "paired" else f"{fingerprints[0]} elsewhere"}
        sides = ("model", "against") if view == "paired" else ("model",)
        subjects = {side: _open_again(about, side, open_model) for side in sides}  # a model may be gone or another
        opened = record_opening(key, of_slice)
        values_N = _values(about, suite, metric, subjects)
        found = slice_gap(values_N[sealed_N], inside_N[sealed_N], permutations=permutations, seed=seed)
        p_family = min(1.0, opened * found.p)
        word = CONFIRMED if found.gap < 0.0 and p_family <= ALPHA else REFUTED
        record_verdict(key, {**of_slice, "difference": found.gap, "p": found.p, "family": opened, "verdict": word})
        write_slices(folder, [{**one, "status": word} if one["id"] == key else one for one in slices])
    against = models[-1]["name"] if view == "paired" else None
    gap = float(known["gap"]) if known is not None else None
    return Confirmation(
        key, rule, view, models[0]["name"], against, suite.name, metric, word, found, gap, opened, p_family
    )


def _refuse_too_small(rule: str, inside: int, sealed: int) -> None:
    """Refuse a slice before it is opened, if the sealed half can show no gap of it: two queries have a spread, one not.

    Raises:
        InputError: it has fewer than two sealed queries inside or outside.
    """
    if min(inside, sealed - inside) < LEAST:
        raise InputError(
            f"the slice '{rule}' has {inside} of {sealed} sealed queries, which show no gap, since two or more are "
            "needed inside and outside: nothing was opened; use another rule or a larger suite"
        )


def rule_of(name: str, known: Mapping[str, Any] | None, about: Mapping[str, Any]) -> tuple[str, View]:
    """The rule and view of a slice's id, or of a rule that a person gives.

    Raises:
        InputError: neither.
    """
    if known is not None:
        return str(known["rule"]), "paired" if known["view"] == "paired" else "absolute"
    if " " not in name:
        raise InputError(f"this inspection has no slice '{name}'")
    return str(parse_predicate(name)), "paired" if about["against"] is not None else "absolute"


def _open_again(about: Mapping[str, Any], side: str, open_model: OpenModel) -> Subject | None:
    """The model of a side, if its values must be computed again; None if they are stored."""
    if known_step(about["steps"][side], "reading") is not None:
        return None
    subject = open_model(about[side]["open"])
    if subject.model.fingerprint != about[side]["fingerprint"]:
        raise InputError(f"{subject.model.name} is another model than the one that was inspected; inspect again")
    return subject


def _values(
    about: Mapping[str, Any], suite: RetrievalSuite, metric: str, subjects: Mapping[str, Subject | None]
) -> np.ndarray:
    """Values of every query, float64[N], minus those of the other side where there is one."""
    own_N, *others = [_of_model(about["steps"][side], suite, metric, one) for side, one in subjects.items()]
    return own_N - others[0] if others else own_N


def _of_model(key: str, suite: RetrievalSuite, metric: str, subject: Subject | None) -> np.ndarray:
    stored = known_step(key, "reading")
    if stored is not None:
        values_N: np.ndarray = stored["scores"][stored["metrics"].tolist().index(metric)]
        return values_N
    assert subject is not None
    steps = Steps(subject.model.fingerprint, subject.model.describe(), suite.fingerprint)
    return read_model(subject.model, suite, steps, run=subject.run).values(metric)
