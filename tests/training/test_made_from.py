"""A run goes on with the contents that it began with, from any folder, or not at all."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import write_tiny
from tiny_run import write_rows_file

from gemma4vec.data.loading.resolve_names import sources_of_run
from gemma4vec.data.rows.rows import read_rows
from gemma4vec.errors import InputError
from gemma4vec.ledger.records import run_record
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.recipe.load import load_recipe
from gemma4vec.training.engine.made_from import ChangedInputError
from gemma4vec.training.prepare_run import prepare_run, reopen_run
from gemma4vec.training.run import recipe_of, start_run, train_run

RECIPE: dict[str, Any] = {
    "name": "made",
    "model": {"base": "base", "dtype": "fp32", "max_tokens": 32, "lora": {"rank": 2}},
    "stages": [
        {
            "data": [{"name": "rows", "path": "rows.jsonl"}],
            "task": {
                "terms": [{"kind": "nce"}, {"kind": "matching", "vectors": "teacher.jsonl", "form": "relational"}]
            },
            "batch": {"rows": 4},
            "budget": {"steps": 2},
        }
    ],
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, rows and a teacher's vectors, named by relative paths."""
    folder = tmp_path_factory.mktemp("original")
    write_tiny(folder / "base", "llama", layers=2)
    write_teacher(folder, read_rows(write_rows_file(folder / "rows.jsonl")).rows)
    return folder


def write_teacher(folder: Path, rows: Any) -> None:
    texts = {text for row in rows for text in (row.query, *(document.text for document in row.pos))}
    vectors = [json.dumps({"text": text, "vector": [len(text), 1.0]}) for text in sorted(texts)]
    (folder / "teacher.jsonl").write_text("\n".join(vectors) + "\n")


@pytest.fixture
def begun(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run in its own folder that was killed after its first step."""
    shutil.copytree(original, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    run = start_run(load_recipe(RECIPE), tmp_path / "runs")
    prepare_run(run, load_recipe(RECIPE))
    run.event("step", step=1, loss=1.0)
    return run


def other_weights() -> None:
    file = Path("base/model.safetensors")
    save_file({name: torch.zeros_like(value) for name, value in load_file(file).items()}, file, {"format": "pt"})


def other_tokenizer() -> None:
    file = Path("base/tokenizer.json")
    file.write_text(file.read_text() + "\n")


def other_rows() -> None:
    file = Path("rows.jsonl")
    file.write_text(file.read_text().replace("the file", "another text"))


def other_vectors() -> None:
    file = Path("teacher.jsonl")
    file.write_text(file.read_text().replace("1.0]", "2.0]"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_weights, "model.base: the weights of .*base"),
        (other_tokenizer, "model.base: the configuration or tokenizer of .*base"),
        (other_rows, "stages.0.data: the rows of rows"),
        (other_vectors, "stages.0.task.terms.1: the contents of .*teacher.jsonl"),
    ],
)
def test_changed_contents_stop_a_resume_with_both_hashes(begun: RunFolder, change: Any, said: str) -> None:
    before = begun.manifest
    change()
    with pytest.raises(ChangedInputError, match=said) as caught:
        train_run(begun)
    now, then = re.findall(r"\b[0-9a-f]{16}\b", str(caught.value))
    assert now != then and then in json.dumps(before)
    assert begun.manifest == before  # its status too: nothing was done
    assert not begun.events("failed")


def test_the_same_contents_go_on_from_any_folder(
    begun: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = begun.manifest
    assert recipe_of(begun).model.base == "base"  # in its own folder, as it was written
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = recipe_of(begun)
    assert recipe.model.base == str(tmp_path / "work" / "base")
    prepared = prepare_run(begun, recipe)
    assert len(prepared.data[0].rows) == 24 and prepared.base.path == (tmp_path / "work" / "base")
    assert begun.manifest == before
    assert [source.path for source in sources_of_run(begun)] == [str(tmp_path / "work" / "rows.jsonl")]
    for facts in (begun.manifest["made_from"]["model.base"], begun.manifest["data"]["0-contrast"]["rows"]):
        assert Path(facts["path"]).is_absolute()


def test_what_was_never_trained_may_change(begun: RunFolder) -> None:
    """Who mends rows after a failed start resumes, and the manifest has the rows that are trained."""
    (begun.path / "events.jsonl").unlink()
    before = begun.manifest
    other_weights()
    other_rows()
    write_teacher(Path(), read_rows(Path("rows.jsonl")).rows)
    prepare_run(begun, recipe_of(begun))
    now = begun.manifest
    assert now["made_from"]["model.base"]["weights"] != before["made_from"]["model.base"]["weights"]
    assert now["data"]["0-contrast"]["rows"]["content_hash"] != before["data"]["0-contrast"]["rows"]["content_hash"]


def forget(run: RunFolder) -> None:
    """Make the manifest that of an earlier release."""
    new = ("made_from", "inherited", "started_in")
    run.write_manifest({key: value for key, value in run.manifest.items() if key not in new})


def test_a_run_of_an_earlier_release_goes_on_with_one_line(begun: RunFolder, log_lines: list[str]) -> None:
    forget(begun)
    other_weights()
    prepare_run(begun, recipe_of(begun))
    (line,) = (line for line in log_lines if "earlier release" in line)
    assert "cannot be checked" in line
    assert "made_from" not in begun.manifest  # hashes of today are not those that it began with
    other_rows()
    with pytest.raises(ChangedInputError, match="the rows of rows"):
        prepare_run(begun, recipe_of(begun))


def test_from_another_folder_it_says_where_to_go(
    begun: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(begun)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="relative to the folder that it was started in"):
        train_run(begun)
    assert begun.manifest["status"] == "started"


def test_a_trained_run_is_not_opened_on_another_base(begun: RunFolder) -> None:
    reopen_run(begun, recipe_of(begun))
    other_weights()
    with pytest.raises(ChangedInputError, match=r"model\.base"):
        reopen_run(begun, recipe_of(begun))


def test_the_ledger_has_what_a_run_was_made_from(begun: RunFolder) -> None:
    body = run_record(begun).body
    assert body["made_from"]["model.base"]["weights"] == begun.manifest["made_from"]["model.base"]["weights"]
    assert body["inherited"] == {"data": {}, "unknown": ["teacher.jsonl"], "pretrained": ["base"]}
