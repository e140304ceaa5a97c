"""Verify a remedy: the claim of a run, asked once of the sealed half, with the verdict in the ledger.

Legend: N queries.
"""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.ranking import Progress, no_progress
from gemma4vec.files import disk_errors, home
from gemma4vec.inspection.exposures import (
    count_openings,
    record_opening,
    record_verdict,
    refuse_spent,
    remedy_key,
    verdicts,
)
from gemma4vec.inspection.inspect import describe_queries, steps_of
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.predicates import parse_predicate
from gemma4vec.inspection.reading import read_model
from gemma4vec.inspection.remedy.claims import claim_of
from gemma4vec.inspection.remedy.judge import REFUTED, VERIFIED, Judgment, detectable_effect, judge_claim
from gemma4vec.inspection.topics.space import with_topics
from gemma4vec.ledger.recording import decide
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.ledger.suite_halves import sealed_half
from gemma4vec.recipe.stop_rule import Claim

Floats = npt.NDArray[np.float64]
DECISIONS = {VERIFIED: "keep", REFUTED: "drop"}
NO_CONTROL = "no control arm: what another training of as many rows gains is unknown"


@dataclass(frozen=True)
class Verification:
    """What came of a claim.

    Attributes:
        suite: its name; the claim says how it opens.
        detectable: the gain that the sealed half shows four times out of five, known before it was opened.
        opened: slices that were opened on these contents, this one included.
        alone: the same judgment of each run by itself, where there are several; empty otherwise.
        decision: keep, drop or repeat, as the ledger has it for each run.
    """

    claim: Claim
    suite: str
    runs: list[str]
    against: list[str]
    control: list[str]
    detectable: float
    opened: int
    judgment: Judgment
    alone: list[Judgment]
    decision: str
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "claim": self.claim.model_dump(mode="json"),
            "suite": self.suite,
            "runs": self.runs,
            "against": self.against,
            "control": self.control,
            "detectable": self.detectable,
            "opened": self.opened,
            **self.judgment.as_json(),
            "alone": [one.as_json() for one in self.alone],
            "decision": self.decision,
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """For a person: what could be shown first, then what was."""
        one, claim = self.judgment, self.claim
        asked = f"the claim is {claim.smallest_effect:g}"
        outside = "no query is outside" if one.outside is None else f"elsewhere {one.outside.words()}"
        found = [
            f"{claim.slice}: sealed queries show gains from {self.detectable:.3f}, {asked}",
            f"{claim.metric} on the slice {one.inside.words()}, p {one.inside.p:.4f}, {one.p_family:.4f} as slice "
            f"{self.opened} that was opened on {self.suite}; {outside}",
        ]
        if one.over_control is not None:
            found.append(f"against the control arm {one.over_control.words()}, p {one.over_control.p:.4f}")
        if self.alone:
            each = ", ".join(f"{run.inside.mean:+.3f} {run.verdict}" for run in self.alone)
            found.append(f"each run alone: {each}")
        why = f": {'; '.join(one.reasons)}" if one.reasons else ""
        return [*found, f"{one.verdict}{why} (decision: {self.decision})", *self.notes]


def verify(
    runs: Sequence[Subject],
    against: Sequence[Subject],
    suite: RetrievalSuite,
    *,
    control: Sequence[Subject] = (),
    progress: Progress = no_progress,
    seed: int = 0,
) -> Verification:
    """Ask the sealed half whether a remedy did what it claims; several runs of a side are seeds of one recipe.

    Args:
        runs: trained with the claim.
        against: the model that was inspected, or trainings of its recipe.
        suite: the claim's.
        control: trained with equally many random rows.
        seed: of the random signs.

    Raises:
        InputError: no claim, or one that was changed; another suite; a slice that is spent; too few sealed queries for
            the claimed gain (nothing is opened then); another process verifies the slice.
        WorkError: the ledger cannot record it; nothing was opened then.
    """
    claim = _claim(runs)
    contents, rule = suite.fingerprint, claim.slice
    check_choice("inspect verify", suite)
    if contents != claim.suite_fingerprint:
        raise InputError(f"{suite.name} is not the suite of the claim: its contents have changed; claim again on it")
    _refuse_the_same({"B": runs, "--against": against, "--control": control})
    predicate, key = parse_predicate(rule), remedy_key(rule, contents)
    with _held(key, rule):
        refuse_spent(rule, suite.name, verdicts(contents).get(key))
        columns, _, _ = describe_queries(against[0], suite, steps_of(against[0], contents))
        columns = with_topics(columns, predicate, suite.queries)
        sealed_N = sealed_half(suite)
        if sealed_N is None:
            raise InputError(f"{suite.name} has no sealed query; a remedy needs more")
        mask_N = predicate.mask(columns)
        values = {
            side: np.array([_values(one, suite, claim.metric, progress) for one in subjects])
            for side, subjects in (("B", runs), ("A", against), ("C", control))
            if subjects
        }
        scores = {side: values_RN.mean(axis=0) for side, values_RN in values.items()}
        gains_N = scores["B"] - scores["A"]
        inside = int((mask_N & sealed_N).sum())
        opened = 1 + count_openings(contents, key)
        detectable = detectable_effect(gains_N[mask_N & ~sealed_N], inside, opened)
        if detectable > claim.smallest_effect:
            raise InputError(_too_few(rule, inside, detectable, claim.smallest_effect))
        body = _body(claim, suite, runs, against)
        opened = record_opening(key, body)
        judge = partial(_judge, sealed_N, mask_N, claim, opened, seed)
        found = judge(scores)
        alone = [judge(one) for one in _each_run(values)] if len(runs) > 1 else []
        verdict = {"difference": found.inside.mean, "p": found.inside.p, "family": opened, "verdict": found.verdict}
        record_verdict(key, {**body, **verdict, "judgment": found.as_json()})
        decision = DECISIONS.get(found.verdict, "repeat")
        _decide(runs, decision, f"{found.verdict} on {rule} of {suite.name}: {found.inside.words()}")
    return Verification(
        claim,
        suite.name,
        [one.model.name for one in runs],
        [one.model.name for one in against],
        [one.model.name for one in control],
        detectable,
        opened,
        found,
        alone,
        decision,
        [] if control else [NO_CONTROL],
    )


def _judge(
    sealed_N: npt.NDArray[np.bool_],
    mask_N: npt.NDArray[np.bool_],
    claim: Claim,
    opened: int,
    seed: int,
    scores: Mapping[str, Floats],
) -> Judgment:
    """Judge the values of all queries, [N], by side."""
    return judge_claim(
        (scores["B"] - scores["A"])[sealed_N],
        mask_N[sealed_N],
        claim.smallest_effect,
        claim.not_worse_elsewhere,
        over_control_N=(scores["B"] - scores["C"])[sealed_N] if "C" in scores else None,
        family=opened,
        seed=seed,
    )


def _each_run(values: Mapping[str, Floats]) -> Iterator[dict[str, Floats]]:
    """Each run of B with those of the other sides that were named at the same place, or with their mean if there are
    more or fewer of them; values are [runs, N]."""
    count = len(values["B"])
    for place in range(count):
        yield {
            side: values_RN[place] if len(values_RN) == count else values_RN.mean(axis=0)
            for side, values_RN in values.items()
        }


def _claim(runs: Sequence[Subject]) -> Claim:
    """The one claim of all runs."""
    found: list[Claim] = []
    for one in runs:
        if one.run is None:
            raise InputError(f"{one.spec} is no run, so it has no claim; name a run that was trained with one")
        found.append(claim_of(one.run))
    other = next((place for place, claim in enumerate(found) if claim != found[0]), None)
    if other is not None:
        raise InputError(f"{runs[other].spec} has another claim than {runs[0].spec}; verify runs of one recipe")
    return found[0]


def _refuse_the_same(sides: dict[str, Sequence[Subject]]) -> None:
    seen: dict[str, str] = {}
    for side, subjects in sides.items():
        for one in subjects:
            known = seen.setdefault(one.model.fingerprint, side)
            if known != side:
                raise InputError(f"{one.spec} is the same model as one of {known}; name another for {side}")


@contextmanager
def _held(key: str, rule: str) -> Iterator[None]:
    """One process verifies a slice at a time."""
    folder = home() / "inspect"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / f".{key}.lock").open("w")
    with stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process verifies a remedy for '{rule}'; wait for it") from error
        yield


def _values(one: Subject, suite: RetrievalSuite, metric: str, progress: Progress) -> Floats:
    steps = steps_of(one, suite.fingerprint)
    return read_model(one.model, suite, steps, run=one.run, progress=progress).values(metric)


def _too_few(rule: str, inside: int, detectable: float, effect: float) -> str:
    shows = "no gain at all" if detectable == float("inf") else f"gains from {detectable:.3f}"
    return (
        f"the slice '{rule}' has {inside} sealed queries, which show {shows}, and the claim is {effect:g}: the half "
        "stays sealed; train again with a larger claim (gemma4vec inspect remedy --effect), or claim on a larger suite"
    )


def _body(claim: Claim, suite: RetrievalSuite, runs: Sequence[Subject], against: Sequence[Subject]) -> dict[str, Any]:
    """What the ledger has of the opening and of the verdict."""
    return {
        "suite": suite.name,
        "suite_fingerprint": suite.fingerprint,
        "rule": claim.slice,
        "view": "remedy",
        "metric": f"{claim.metric} in {claim.slice}",
        "a": runs[0].model.name,
        "fingerprint_a": runs[0].model.fingerprint,
        "b": against[0].model.name,
        "fingerprint_b": against[0].model.fingerprint,
        "claim": claim.model_dump(mode="json"),
    }


def _decide(runs: Sequence[Subject], decision: str, words: str) -> None:
    for one in runs:
        run: RunFolder | None = one.run
        if run is not None:
            known = {"run_id": run.run_id, "recipe_id": run.manifest.get("recipe_id"), "path": str(run.path.resolve())}
            decide(home(), known, decision, words)
