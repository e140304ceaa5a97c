"""A file that is not there is refused in its reader's words, and before a dry run imports torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gemma4vec
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.loading.missing_files import refuse_missing_files
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import KINDS, source_of

RECIPE = """\
name: missing
model: {base: "bundled:gemma-3-270m", readout: {name: mean}}
stages:
  - {name: contrast, data: [{name: rows, path: gone.jsonl}], batch: {rows: 4}, budget: {steps: 2}}
"""


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"datasets"}))
def test_a_missing_file_is_refused_as_its_reader_refuses_it(kind: str, tmp_path: Path) -> None:
    keys = {"columns": {"text": "text"}} if kind == "sqlite" else {}
    source = source_of(source=kind, name="rows", path=str(tmp_path / "gone"), **keys)
    with pytest.raises(InputError) as expected:
        load_sources([source])
    with pytest.raises(InputError) as refused:
        refuse_missing_files([source])
    assert str(refused.value) == str(expected.value) and "gone" in str(refused.value)


def test_what_is_there_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("no row")
    refuse_missing_files([source_of(name="rows", path=str(tmp_path / "rows.jsonl"))])


def test_a_dry_run_refuses_it_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    program = (
        "import sys; from gemma4vec.cli.main import execute; code = execute(['train', 'recipe.yaml', '--dry-run']); "
        "print(code, 'torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(gemma4vec.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["2", "False"], done.stderr
    assert "gone.jsonl" in done.stderr and len(done.stderr.strip().splitlines()) == 1
