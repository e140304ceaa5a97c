"""What commit da599b7 left on disk opens in today's code: models, runs, a ledger, an index, recipes (see the fixture's
README). The program is driven by its command line, so that no move of a module changes these tests."""

import contextlib
import hashlib
import io
import json
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma4vec.cli.main import run
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.recorded.fingerprint import recipe_id

OLD = Path(__file__).resolve().parent / "fixtures" / "da599b7"
PLACEHOLDER = "/tmp/gemma4vec-da599b7"
EXPECTED: dict[str, Any] = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))
ECHO, PLAIN, KILLED = (EXPECTED["runs"][name] for name in ("echo", "plain", "killed"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The old files, never written to."""
    folder = tmp_path_factory.mktemp("da599b7")
    with tarfile.open(OLD / "work.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def work(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy whose files name its own path; the working folder, and its `home` the outputs' folder."""
    copy = tmp_path / "work"
    shutil.copytree(unpacked, copy)
    relocate(copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("GEMMA4VEC_HOME", str(copy / "home"))
    return copy


def relocate(copy: Path) -> None:
    """Replace the folder's old path by its new one, in text files and in the ledger's index."""
    for path in copy.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml", ".md"):
            text = path.read_text(encoding="utf-8")
            if PLACEHOLDER in text:
                path.write_text(text.replace(PLACEHOLDER, str(copy)), encoding="utf-8")
    with contextlib.closing(sqlite3.connect(copy / "home" / "ledger.sqlite")) as index:
        triggers = index.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:  # records never change; here their folder has moved
            index.execute(f"DROP TRIGGER {name}")
        index.execute("UPDATE records SET body = replace(body, ?, ?)", (PLACEHOLDER, str(copy)))
        for _, sql in triggers:
            index.execute(sql)
        journal = copy / "home" / "ledger.jsonl"
        head = journal.read_bytes()[:4096].partition(b"\n")[0].hex()
        index.execute("UPDATE journal_read SET head = ?, bytes = ?", (head, journal.stat().st_size))
        index.commit()


def gemma4vec(*words: str, code: int = 0) -> str:
    """Output of a command that is to end with `code`: stdout, or stderr where it fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        run(list(words))
    assert (ended.value.code or 0) == code, err.getvalue()
    return err.getvalue() if code else out.getvalue()


def from_json(*words: str) -> Any:
    return json.loads(gemma4vec(*words, "--json"))


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def lost(found: Any, expected: Any, where: str = "") -> str:
    """Where `found` says something else than `expected`, or empty. It may say more; floats count to 6 digits."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = [key for key in expected if key not in ("path", "folder", "seconds")]
        return next(filter(None, (lost(found.get(key), expected[key], f"{where}.{key}") for key in keys)), "")
    if isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = zip(found, expected, strict=True)
        return next(filter(None, (lost(*pair, f"{where}[{place}]") for place, pair in enumerate(pairs))), "")
    same = found == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected)
    return "" if same else f"{where} is {found!r}, was {expected!r}"


@contextlib.contextmanager
def plain_sentence_transformers(model: Path) -> Iterator[Callable[[str], np.ndarray]]:
    """Vectors of the fixture's texts by the library alone, as a person opens a folder."""
    from sentence_transformers import SentenceTransformer

    opened = SentenceTransformer(str(model), trust_remote_code=True, device="cpu").float()
    yield lambda role: opened.encode(EXPECTED["texts"], prompt_name=role)


def test_the_old_files_are_as_they_were() -> None:
    """A tool that renames things everywhere must not rename them here."""
    found = {name: hashlib.sha256((OLD / name).read_bytes()).hexdigest() for name in EXPECTED["sha256"]}
    assert found == EXPECTED["sha256"]
    assert {str(path.relative_to(OLD)) for path in OLD.rglob("*.yaml")} <= set(found)


def test_recipes_keep_their_ids() -> None:
    """Freezes, final looks and families of seeds are kept by these ids."""
    ids = EXPECTED["recipe_ids"]
    assert {name: recipe_id(load_recipe(OLD / "recipes" / f"{name}.yaml")) for name in ids["own"]} == ids["own"]
    assert {name: recipe_id(load_recipe(Path(name))) for name in ids["shipped"]} == ids["shipped"]


@pytest.mark.parametrize("name", ["echo", "plain", "killed"])
def test_recipes_of_run_folders_keep_their_ids(work: Path, name: str) -> None:
    folder = work / "home" / EXPECTED["runs"][name]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert recipe_id(load_recipe(folder / "recipe.yaml")) == manifest["recipe_id"]


def test_the_module_that_old_folders_name_is_there() -> None:
    from gemma4vec.model.sentence_transformers_module import Gemma4VecEncoder

    assert Gemma4VecEncoder.__name__ == "Gemma4VecEncoder"


@pytest.mark.parametrize(("name", "has_own_module"), [("echo", True), ("plain", False)])
def test_saved_models_open_in_plain_sentence_transformers(work: Path, name: str, has_own_module: bool) -> None:
    model = work / "home" / EXPECTED["runs"][name] / "model"
    modules = (model / "modules.json").read_text(encoding="utf-8")
    assert ("gemma4vec.model.sentence_transformers_module.Gemma4VecEncoder" in modules) == has_own_module
    with plain_sentence_transformers(model) as encode:
        for role, expected in EXPECTED["vectors"][name].items():
            np.testing.assert_allclose(encode(role), expected, atol=1e-5)


def test_saved_models_score_as_before(work: Path) -> None:
    for name in (ECHO, PLAIN):
        found = from_json("eval", name, "--suite", "suites/dev", "--dtype", "fp32", "--no-cache")
        assert not lost(found, EXPECTED["scores"][name])


def test_kept_checkpoints_score_as_before(work: Path) -> None:
    assert not lost(from_json("eval", ECHO, "--checkpoints", "--no-cache"), EXPECTED["checkpoints"])


def test_the_killed_run_goes_on_to_the_same_losses(work: Path) -> None:
    folder, expected = work / "home" / KILLED, EXPECTED["resumed"]
    assert len(events(folder, "step")) == expected["steps_before"]
    gemma4vec("train", "--resume", KILLED, "--json")
    steps = events(folder, "step")[expected["steps_before"] :]
    for found, before in zip(steps, expected["steps"], strict=True):
        assert {key: found[key] for key in before} == pytest.approx(before, rel=1e-4)
    from safetensors.numpy import load_file

    weights = load_file(folder / "model" / "model.safetensors")
    norms = {name: float(np.linalg.norm(value.astype(np.float64))) for name, value in weights.items()}
    assert norms == pytest.approx(expected["weights"], rel=1e-4)
    with plain_sentence_transformers(folder / "model") as encode:
        np.testing.assert_allclose(encode("query"), expected["vectors"]["query"], atol=1e-4)


def test_a_finished_run_is_not_resumed_and_reports(work: Path) -> None:
    assert ECHO in gemma4vec("train", "--resume", ECHO, code=2)
    gemma4vec("report", ECHO)
    page = (work / "home" / ECHO / "report.html").read_text(encoding="utf-8")
    assert ECHO in page


def test_the_ledger_says_what_it_said(work: Path) -> None:
    ledger = EXPECTED["ledger"]
    assert not lost(from_json("runs"), ledger["runs"])
    assert not lost(from_json("runs", "looks"), ledger["looks"])
    assert from_json("runs", "sql", "SELECT run_id, decision, words FROM decisions ORDER BY seq") == ledger["decisions"]
    assert from_json("runs", "sql", "SELECT recipe_id, run_id, words FROM freezes") == ledger["freezes"]
    compared = "SELECT suite, metric, a, b, difference, p, verdict FROM comparisons"
    assert not lost(from_json("runs", "sql", compared), ledger["comparisons"])
    assert from_json("runs", "show", ECHO)["run_id"] == ECHO
    assert from_json("runs", "diff", ECHO, PLAIN)["b"] == PLAIN


def test_comparisons_count_what_the_old_ledger_counts(work: Path) -> None:
    """The difference, and the family of tries that corrects its p-value."""
    expected, found = dict(EXPECTED["compared"]), from_json("compare", ECHO, PLAIN, "--suite", "dev")
    named = [expected.pop(side) for side in ("largest_wins", "largest_losses")]
    assert not lost(found, expected)
    # The old version named sealed queries, too.
    assert 0 < found["withheld"] < 12 and found["largest_wins"]
    for side, before in zip(("largest_wins", "largest_losses"), named, strict=True):
        assert not lost(
            found[side], [one for one in before if one["query_id"] in {two["query_id"] for two in found[side]}]
        )


def test_the_index_is_made_again_from_the_old_journal(work: Path) -> None:
    (work / "home" / "ledger.sqlite").unlink()
    gemma4vec("runs", "rebuild")
    kinds = from_json("runs", "sql", "SELECT kind, count(*) AS count FROM records GROUP BY kind ORDER BY kind")
    found, before = ({row["kind"]: row["count"] for row in rows} for rows in (kinds, EXPECTED["ledger"]["records"]))
    assert found.pop("run") >= before.pop("run")  # folders that have moved are noted once more
    assert found == before
    assert not lost(from_json("runs", "looks"), EXPECTED["ledger"]["looks"])


@pytest.mark.parametrize("from_journal", [False, True], ids=["index", "journal"])
def test_final_suites_stay_closed(work: Path, from_journal: bool) -> None:
    """Before a freeze, and for a second look after one; also where the suite's file does not call it final any more."""
    final, sealed = (["--suite", f"suites/{name}", "--dtype", "fp32"] for name in ("final", "sealed"))
    if from_journal:
        (work / "home" / "ledger.sqlite").unlink()
    for name in ("final", "sealed"):
        (work / "suites" / name / "suite.yaml").unlink()
    before = from_json("runs", "looks")
    assert re.search("final.*freeze", gemma4vec("eval", PLAIN, *final, code=2))
    assert re.search("sealed.*freeze", gemma4vec("eval", PLAIN, *sealed, code=2))
    assert re.search("final.*frozen", gemma4vec("eval", ECHO, *final, "--max-tokens", "32", code=2))
    assert from_json("runs", "looks") == before
    gemma4vec("eval", ECHO, *final)  # the very same model says nothing new
    (final_row,) = (row for row in from_json("runs", "looks") if row["suite"] == "final")
    assert final_row["models"] == 1
    gemma4vec("runs", "freeze", PLAIN, "now")
    gemma4vec("eval", PLAIN, *final)
    gemma4vec("eval", PLAIN, *sealed)


def test_the_search_index_opens_with_its_hits(work: Path) -> None:
    """Which of the two indexes is the model's depends on this machine's default type; one of them must be."""
    folder, query = work / "home" / PLAIN / "index", "sort a green tree"
    shutil.copytree(folder / "fp32", folder / "test")
    dtype = "fp32"
    try:
        found = from_json("search", PLAIN, query)
    except AssertionError:
        shutil.rmtree(folder / "test")
        shutil.copytree(folder / "bf16", folder / "test")
        dtype, found = "bf16", from_json("search", PLAIN, query)
    expected = EXPECTED["search"][dtype]
    assert [hit["id"] for hit in found["hits"]] == [hit["id"] for hit in expected]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit["score"] for hit in expected], abs=2e-3)
    assert [hit["text"] for hit in found["hits"]] == [hit["text"] for hit in expected]


def test_an_index_of_another_model_is_refused(work: Path) -> None:
    """So the test above cannot pass by ignoring whose index it is."""
    shutil.copytree(work / "home" / PLAIN / "index" / "fp32", work / "home" / ECHO / "index" / "test")
    assert "another model" in gemma4vec("search", ECHO, "sort a green tree", code=2)


def test_the_matrix_plans_the_same_cells(work: Path) -> None:
    assert not lost(from_json("matrix", "matrix/plan.yaml", "--dry-run"), EXPECTED["matrix"])
