"""Mixtures of sources: drawn around a known one, and written into a recipe as weights."""

from collections.abc import Mapping

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.recipe.plans.plan import Draw
from gemma4vec.recipe.schema import Recipe


def draw_mixtures(draw: Draw) -> dict[str, dict[str, float]]:
    """Draw mixtures from a Dirichlet distribution with mean `around`: name -> source -> weight, with sum 1.

    The parameters are `concentration * around / sum(around)`, so a weight w of the mean has the variance
    w (1 - w) / (concentration + 1). EmbeddingGemma (arXiv:2509.20354) draws its mixtures so; its concentration is not
    published. A source of weight 0 stays at 0.

    Raises:
        InputError: fewer than two sources have a weight.
    """
    names = [name for name, weight in draw.around.items() if weight > 0]
    if len(names) < 2:
        raise InputError(
            "draw.around: fewer than two sources have a weight, so all draws are the same; give others one"
        )
    mean_S = np.array([draw.around[name] for name in names], dtype=np.float64)
    drawn_KS = np.random.default_rng(draw.seed).dirichlet(draw.concentration * mean_S / mean_S.sum(), draw.dirichlet)
    absent = {name: 0.0 for name in draw.around if name not in names}
    return {
        f"draw-{number}": {**dict(zip(names, map(float, weights_S), strict=True)), **absent}
        for number, weights_S in enumerate(drawn_KS)
    }


def weigh_sources(recipe: Recipe, mixture: Mapping[str, float], where: str, file: str) -> list[str]:
    """The changes to a recipe that give its sources the mixture's weights; sources that it does not name get 0.

    Only stages with a source of the mixture change. A temperature of theirs is removed: weights replace it.

    Args:
        recipe: the recipe.
        mixture: source -> weight; empty: no changes.
        where, file: begin the line of an error, and name the recipe in it.

    Raises:
        InputError: a name is that of no source, or all weights of a stage are 0.
    """
    sources = {source.name for stage in recipe.stages for source in stage.data}
    unknown = next((name for name in mixture if name not in sources), None)
    if unknown is not None:
        raise InputError(f"{where}: {file} has no source {unknown!r}; it has {', '.join(sorted(sources))}")
    changes = []
    for number, stage in enumerate(recipe.stages):
        weights = {place: mixture.get(source.name, 0.0) for place, source in enumerate(stage.data)}
        if not any(source.name in mixture for source in stage.data):
            continue
        if not any(weights.values()):
            raise InputError(f"{where}: all sources of stage {stage.name} of {file} have weight 0; give one a weight")
        changes += [f"stages.{number}.data.{place}.weight={weight!r}" for place, weight in weights.items()]
        changes.append(f"stages.{number}.mixture.temperature=null")
    return changes
