"""The greedy choice, on scores that are known."""

from collections.abc import Callable, Sequence

from gemma4vec.pipeline.soup.greedy import choose_greedily, members_of


def by_members(
    values: dict[frozenset[int], float],
) -> tuple[list[frozenset[int]], Callable[[Sequence[int]], float]]:
    asked: list[frozenset[int]] = []

    def score(members: Sequence[int]) -> float:
        asked.append(frozenset(members))
        return values[frozenset(members)]

    return asked, score


def test_a_tie_is_kept_and_a_fall_is_not() -> None:
    values = {frozenset({1, 2}): 0.5999, frozenset({1, 0}): 0.6, frozenset({1, 0, 3}): 0.7}
    asked, score = by_members(values)
    trials = choose_greedily([0.5, 0.6, 0.55, 0.4], score)
    assert [(trial.added, trial.kept, trial.score) for trial in trials] == [
        (1, True, 0.6),
        (2, False, 0.5999),
        (0, True, 0.6),
        (3, True, 0.7),
    ]
    assert asked == [{1, 2}, {1, 0}, {1, 0, 3}] and members_of(trials) == (1, 0, 3)


def test_the_best_model_alone_can_be_the_soup() -> None:
    trials = choose_greedily([0.5, 0.5, 0.4], lambda members: 0.1)
    assert [trial.added for trial in trials] == [0, 1, 2]  # ties by their order
    assert members_of(trials) == (0,)
