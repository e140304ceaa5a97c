"""The best checkpoint on a suite, and how much of its lead comes from choosing."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gemma4vec.data.suites.kinds import LOWER_IS_BETTER
from gemma4vec.errors import InputError
from gemma4vec.evaluation.results.result import Result
from gemma4vec.statistics.selection import Selection, selection_effect

CheckpointPlace = tuple[int, int]  # stage, step


def choose_checkpoint(results: Mapping[CheckpointPlace, Result], metric: str) -> tuple[CheckpointPlace, Selection]:
    """Choose the checkpoint with the best mean of `metric`, and estimate how much choosing flatters it.

    Raises:
        InputError: results on different queries, or one that lacks the metric.
    """
    places = sorted(results)
    keys = results[places[0]].values(metric)[0]
    if any(results[place].values(metric)[0] != keys for place in places):
        raise InputError("the checkpoints were evaluated on different queries; evaluate all again")
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    scores_CN = sign * np.stack([results[place].values(metric)[1] for place in places])
    found = selection_effect(scores_CN, [task for task, _ in keys])
    return places[found.best], replace(found, score=sign * found.score, held_out=sign * found.held_out)


def choice_sentence(place: CheckpointPlace, found: Selection, suite: str, role: str | None) -> str:
    """Describe the choice for a person, with the bias that choosing adds."""
    count = len(found.chosen_share)
    sentence = (
        f"Best of {count} checkpoints on {suite}: step {place[1]} of stage {place[0]}, {found.score:.4f}. Choosing it "
        f"on these queries flatters it by about {found.effect:.4f}: chosen on one half and scored on the other, "
        f"{found.held_out:.4f}; {found.chosen_share[found.best]:.0%} of the halves choose this one."
    )
    if role == "final":
        sentence += " This is a final suite: a checkpoint chosen on it has no test left; choose on a dev suite."
    return sentence
