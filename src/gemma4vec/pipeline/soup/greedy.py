"""Greedy soup (Wortsman et al. 2022, arXiv:2203.05482, recipe 1): add models while the dev score does not fall.

The arithmetic of the choice alone; scores come from a function of the caller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """One candidate of the search.

    Attributes:
        added: index of the model that was added.
        members: indices of the models of the candidate, in the order in which they were added.
        score: of the plain mean of the members.
        kept: whether the score did not fall.
    """

    added: int
    members: tuple[int, ...]
    score: float
    kept: bool


def choose_greedily(scores: Sequence[float], score_of: Callable[[Sequence[int]], float]) -> list[Trial]:
    """Choose the members of a soup.

    Models are sorted by their own scores, ties by their order. The best one is the first member. Each further one is
    kept if the mean with it scores at least as well as the mean without it.

    Args:
        scores: of each model alone.
        score_of: returns the score of the plain mean of these models.

    Returns:
        One trial for each model, in the order in which they were tried; the members of the last kept one are the soup.
    """
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    members: tuple[int, ...] = (order[0],)
    best = scores[order[0]]
    trials = [Trial(order[0], members, best, True)]
    for index in order[1:]:
        candidate = (*members, index)
        score = score_of(candidate)
        kept = score >= best
        trials.append(Trial(index, candidate, score, kept))
        if kept:
            members, best = candidate, score
    return trials


def members_of(trials: Sequence[Trial]) -> tuple[int, ...]:
    """Return the members of the chosen soup."""
    return next(trial.members for trial in reversed(trials) if trial.kept)
