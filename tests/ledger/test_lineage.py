"""The training data of a model, through everything that it was made from."""

import shutil
from pathlib import Path
from typing import Any

from ledger_samples import make_run

from gemma4vec.files import home
from gemma4vec.ledger.lineage import (
    Lineage,
    find_folder,
    find_manifest,
    lineage_of_model,
    lineage_of_run,
    runs_of_weights,
)
from gemma4vec.ledger.run_folder import RunFolder

W = {name: name * 64 for name in "abc"}


def rows(name: str) -> dict[str, Any]:
    return {"0-contrast": {name: {"content_hash": name * 8, "path": f"{name}.jsonl", "rows": 3}}}


def trained(name: str, weights: str, **manifest: Any) -> RunFolder:
    """A finished run with a model folder."""
    inherited = {"data": {}, "unknown": [], "pretrained": ["bundled:x"]}
    run = make_run(home(), name, data=rows(name), weights=weights, **{"inherited": inherited, **manifest})
    run.model.mkdir()
    return run


def of(folder: Path, weights: str, recorded: str | None = None, **settings: Any) -> Lineage:
    return lineage_of_model(folder, weights, "thing", recorded_name=recorded, **settings)


def test_a_model_in_its_run_and_a_copy_of_it(tmp_path: Path) -> None:
    run = trained("one", W["a"])
    expected = Lineage({run.run_id: rows("one")}, (), ("bundled:x",))
    copy = Path(shutil.copytree(run.model, tmp_path / "copy"))
    assert of(run.model, W["a"]) == of(copy, W["a"], run.run_id) == expected
    assert of(copy, W["a"]) == expected  # its weights alone say whose it is
    assert of(copy, W["a"], "somebody-else") == expected


def test_other_weights_under_a_runs_name_are_unknown_too(tmp_path: Path) -> None:
    run = trained("one", W["a"])
    for folder in (run.model, tmp_path):
        found = of(folder, W["b"], run.run_id)
        assert found.unknown == ("thing",) and list(found.data) == [run.run_id]


def test_weights_of_another_run_bring_its_data(tmp_path: Path) -> None:
    one, two = trained("one", W["a"]), trained("two", W["b"])
    found = of(one.model, W["b"], one.run_id)
    assert set(found.data) == {one.run_id, two.run_id} and not found.unknown


def test_a_foreign_model_is_unknown(tmp_path: Path) -> None:
    assert of(tmp_path, W["c"]) == Lineage(unknown=("thing",))
    assert of(tmp_path, W["c"], "a-run-of-somebody") == Lineage(unknown=("thing",))
    assert of(tmp_path, W["c"], pretrained=True) == Lineage(pretrained=("thing",))
    assert lineage_of_model(None, None, "thing") == Lineage(unknown=("thing",))


def test_the_line_goes_on_through_runs_and_teachers() -> None:
    inherited = {"data": {"older": rows("older")}, "unknown": ["teacher"], "pretrained": ["bundled:x"]}
    run = trained("one", W["a"], inherited=inherited)
    found = lineage_of_run(run.manifest)
    assert list(found.data) == [run.run_id, "older"]
    assert found.unknown == ("teacher",) and found.pretrained == ("bundled:x",)


def test_a_deleted_run_is_known_from_the_ledger(tmp_path: Path) -> None:
    run = trained("one", W["a"])
    run_id = run.run_id
    copy = Path(shutil.copytree(run.model, tmp_path / "copy"))
    assert find_folder(run_id) == run
    shutil.rmtree(run.path)
    assert find_folder(run_id) is None and (find_manifest(run_id) or {})["data"] == rows("one")
    assert runs_of_weights(W["a"]) == [run_id] and runs_of_weights(W["b"]) == []
    assert list(of(copy, W["a"], run_id).data) == [run_id] and not of(copy, W["a"], run_id).unknown


def test_runs_of_earlier_releases_lead_on_through_their_parents(tmp_path: Path) -> None:
    first = make_run(home(), "first", data=rows("first"), base={"name": "bundled:x"})
    second = make_run(
        home(), "second", data=rows("second"), base={"name": str(first.model)}, parents=[first.run_id, "gone"]
    )
    first.update_manifest(parents=[second.run_id])  # a circle ends
    found = lineage_of_run(second.manifest)
    assert list(found.data) == [second.run_id, first.run_id]
    assert found.unknown == ("gone",) and found.pretrained == ("bundled:x",)
    assert of(second.model, W["a"], second.run_id).unknown == ("gone",)  # without a hash the name vouches


def test_a_model_of_an_unfinished_run_is_known_by_its_name(tmp_path: Path) -> None:
    run = trained("one", W["a"])
    found = of(tmp_path, W["b"], f"{run.run_id}-step-12")
    assert list(found.data) == [run.run_id] and not found.unknown
