"""Gemma-Embed's three phases: a score after each, tensors in place of the database, and what their files may lack."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from phase_files import padded, write_phase_files, write_queries, write_triplets
from tiny_model import write_tiny
from tiny_run import rows

from gemma4vec.errors import InputError
from gemma4vec.recipe.find import find_recipe
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.estimate.dry_run import estimate
from gemma4vec.training.prepare_run import check_inputs
from gemma4vec.training.run import start_run, train_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base and the files of the three phases."""
    folder = tmp_path_factory.mktemp("phases")
    write_tiny(folder / "base", "gemma3", layers=2)
    write_phase_files(folder, rows())
    return folder


@pytest.fixture
def files(made: Path, tmp_path: Path) -> Path:
    """A copy of the files that may be damaged."""
    for name in ("text.txt", "triplets.csv", "queries.db", "pretokenized_queries.pt"):
        shutil.copy(made / name, tmp_path / name)
    return tmp_path


def small(made: Path, files: Path, name: str = "gemma_embed/three_phases", *overrides: str) -> Recipe:
    tree: dict[str, Any] = yaml.safe_load(find_recipe(name).read_text())
    tree["model"] |= {"base": str(made / "base"), "dtype": "fp32", "max_tokens": 48}
    for stage in tree["stages"]:
        for source in stage["data"]:
            source["path"] = str(files / source["path"])
        stage["evaluation"]["suite"] = str(made / "dev")
        stage |= {"batch": {"rows": 4}, "budget": {"steps": 2}}
        stage["layout"] |= {"row_tokens": 64, "tokens_per_forward": 256, "compile": False}
    return parse_recipe(yaml.safe_dump(tree), name, list(overrides))


def test_each_phase_ends_with_a_score_and_moves_the_model(made: Path, files: Path, tmp_path: Path) -> None:
    tensors = f"{{name: queries, source: tensors, path: {files / 'pretokenized_queries.pt'}, pair_with_itself: true}}"
    margin = "stages.1.task.terms=[{kind: triplet, margin: 0.2}, {kind: nce, hardness: 0, weight: 0.5}]"
    run = start_run(small(made, files, "gemma_embed/three_phases", margin, f"stages.2.data=[{tensors}]"), tmp_path)
    train_run(run)
    scores = run.events("evaluation")
    assert [(event["stage"], event["step"]) for event in scores] == [(0, 2), (1, 2), (2, 2)]
    assert [event["stage"] for event in run.events("stage_finished")] == [0, 1, 2]
    steps = run.events("step")
    assert {name for event in steps if event["stage"] == 1 for name in event["terms"]} == {"triplet", "nce"}


def test_vectors_of_every_phase_are_written_back(made: Path, files: Path, tmp_path: Path) -> None:
    tensors = f"{{name: queries, source: tensors, path: {files / 'pretokenized_queries.pt'}, pair_with_itself: true}}"
    recipe = small(made, files, "gemma_embed/three_phases_invertible", f"stages.2.data=[{tensors}]")
    assert recipe.model == small(made, files).model
    run = start_run(recipe, tmp_path)
    train_run(run)
    steps = run.events("step")
    assert len(steps) == 6 and all(set(event["terms"]) == {"nce", "reconstruct"} for event in steps)
    assert all(0 < event["terms"]["reconstruct"] < 20 for event in steps)
    assert len(run.events("evaluation")) == 3


def cut_mask(files: Path) -> None:
    ids, mask = padded("read", 8)
    write_triplets(files / "triplets.csv", [[ids, mask[:-1], ids, mask, ids, mask]] * 8)


def large_ids(files: Path) -> None:
    ids, mask = padded("read", 8)
    others = [[[10 + n, *ids[1:]], mask, [20 + n, *ids[1:]], mask, [30 + n, *ids[1:]], mask] for n in range(8)]
    others[3][2] = [262_144, *ids[1:]]
    write_triplets(files / "triplets.csv", others)


def two_tables(files: Path) -> None:
    (files / "queries.db").unlink()
    write_queries(files / "queries.db", [f"query {n}" for n in range(8)], ["clicks", "queries"])


def no_ids(files: Path) -> None:
    ids, mask = padded("read", 8)
    write_triplets(files / "triplets.csv", [[ids, mask, ids, [0] * 8, ids, mask]] * 8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            cut_mask,
            r"triplets\.csv line 2, field 'query\.input_ids': expected a list of .*, and a mask of equal length",
        ),
        (no_ids, r"triplets\.csv line 2, field 'pos\[0\]\.input_ids': expected .*at least one of them unmasked"),
        (large_ids, r"^stages\.1\.data: source 'paraphrases' has token id 262144, the vocabulary of .* ends at \d+; "),
        (two_tables, r"queries\.db: 2 tables; name one of clicks, queries as the source's table"),
    ],
)
def test_bad_files_are_one_line_in_run_and_dry_run(made: Path, files: Path, damage: Any, message: str) -> None:
    damage(files)
    for check in (check_inputs, estimate):
        with pytest.raises(InputError, match=message) as caught:
            check(small(made, files))
        assert "\n" not in str(caught.value)


def test_the_phases_of_self_contrast_need_the_recipes_dropout(made: Path, files: Path) -> None:
    check_inputs(small(made, files))
    with pytest.raises(InputError, match=r"^stages\.0\.data: source 'sentences' is paired with itself"):
        check_inputs(small(made, files, "gemma_embed/three_phases", "model.lora.dropout=0"))
