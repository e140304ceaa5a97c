"""What tasks train next to the model, and texts that a term has the base write, stand in the dry run."""

from pathlib import Path

import pytest
from tiny_decoder import write_inputs
from tiny_model import write_tiny
from tiny_run import write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.training.estimate.dry_run import Estimate, checkpoint_bytes, estimate

RECIPE = """
name: small
model: {{base: {base}, dtype: fp32, attention: causal, max_tokens: 32, lora: {{rank: 2}}}}
stages:
  - data: [{{name: rows, path: {rows}}}]
    batch: {{rows: 8}}
    layout: {{row_tokens: 64, tokens_per_forward: 256, compile: false}}
    budget: {{steps: 3}}
"""
TERMS = "stages.0.task.terms=[{kind: nce}, {kind: reconstruct, prefix_tokens: 3, text_tokens: 12}]"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("beside")
    base = write_tiny(folder / "base", layers=2)
    return RECIPE.format(base=base, rows=write_rows_file(folder / "rows.jsonl"))


def prefix_size(dimension: int, width: int, tokens: int) -> int:
    """Parameters of the two layers that make soft tokens, with their biases."""
    return dimension * width + width + width * tokens * width + tokens * width


def test_the_reconstruct_term_costs_cells_time_and_parameters(recipe: str) -> None:
    def of(*changes: str) -> Estimate:
        return estimate(parse_recipe(recipe, "r", list(changes)))

    plain, term = of().stages[0], of(TERMS).stages[0]
    assert "objective" not in plain.parameters.total
    assert term.parameters.total["objective"] == term.parameters.trainable["objective"] == prefix_size(32, 32, 3)
    more = prefix_size(32, 32, 3)
    assert term.parameters.moment_bytes - plain.parameters.moment_bytes == 8 * more
    assert term.reading.tokens == plain.reading.tokens  # a budget of tokens counts what is embedded
    assert term.reading.all_cells > plain.reading.all_cells and term.memory.optimizer > plain.memory.optimizer
    stages = parse_recipe(recipe, "r").stages
    assert checkpoint_bytes([term.parameters], stages) - checkpoint_bytes([plain.parameters], stages) == 12 * more
    places = {kind for kind, _ in term.measured.seconds}
    assert None in places and len(places) > 1 and term.seconds_per_step > 0


def test_a_decoders_soft_tokens_are_counted_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(write_inputs(tmp_path))
    assert execute(["train", str(file), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert f"{prefix_size(32, 32, 4):,} parameters are trained next to the model" in " ".join(shown.split())
