"""A tiny decoder, trained once for all tests of inversion."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_decoder import train_decoder, write_inputs

from gemma4vec.recipe.load import parse_recipe


@dataclass(frozen=True)
class TrainedDecoder:
    """Folders of the encoder and of the decoder's run, and the recipe."""

    encoder: Path
    run: Path
    recipe: str


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedDecoder:
    folder = tmp_path_factory.mktemp("trained")
    recipe = write_inputs(folder)
    run = train_decoder(recipe, folder / "runs")
    return TrainedDecoder(Path(parse_recipe(recipe, "r").stages[0].task.embedder), run.path, recipe)  # type: ignore[union-attr]
