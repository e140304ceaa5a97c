"""A recipe on disk whose run exports a model."""

from pathlib import Path

from tiny_model import write_tiny
from tiny_run import RECIPE, write_rows_file


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    base = write_tiny(folder / "base", "llama", layers=2)
    file = folder / "recipe.yaml"
    file.write_text(text.format(base=base, rows=write_rows_file(folder / "rows.jsonl")))
    return file
