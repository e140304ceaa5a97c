"""What the sides of a comparison may be."""

from pathlib import Path

import pytest

from gemma4vec.api.comparing import specs_of
from gemma4vec.api.runs import Run
from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder


def test_a_side_is_one_thing_or_a_list(tmp_path: Path) -> None:
    run = Run(RunFolder.create(tmp_path, "one", "name: one\n"))
    assert specs_of("bm25") == ["bm25"] and specs_of(Path("results/x")) == ["results/x"]
    assert specs_of(run) == specs_of([run]) == [str(run.folder)]
    assert specs_of([run, "bm25"]) == [str(run.folder), "bm25"]


def test_a_side_without_a_result_is_refused() -> None:
    with pytest.raises(InputError, match="a side names no result"):
        specs_of([])
    with pytest.raises(InputError, match="the ledger has no evaluated run of a recipe 'abc'"):
        specs_of("recipe:abc")
