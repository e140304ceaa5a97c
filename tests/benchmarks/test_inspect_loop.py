"""`benchmarks.quality.inspect_loop`: which slice is treated, what is kept, and the whole of it on a tiny model."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.quality import inspect_loop
from benchmarks.quality.inspect_loop import choose, control_seeds, main, parse_arguments, summary
from benchmarks.shared.commands import Done, ask
from planted_suite import planted_suite
from tiny_model import write_tiny

from gemma4vec.data.suites.retrieval import write_suite
from gemma4vec.errors import InputError

SLICES = [{"id": f"s{row}", "rule": f"digits > {row}", "view": "paired"} for row in range(4)]
CLAIM = {"slice": "x", "metric": "ndcg@10", "smallest_effect": 0.1, "not_worse_elsewhere": 0.01}


def offer(name: str, recipe: str | None, control: object = None) -> dict[str, Any]:
    about = {"name": name, "words": "", "why_not": "", "matching": 1, "rows": 4, "share": 0.25}
    return {**about, "recipe": recipe, "control_recipe": recipe, "control": control}


def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdicts: dict[str, str], *words: str) -> Any:
    """What is chosen where `confirm` says these verdicts, and the commands that were run."""
    asked = []

    def answer(*command: str) -> dict[str, Any]:
        asked.append(command[1:3])
        if command[1] == "confirm":
            return {"verdict": verdicts[command[2]], "gap": -0.1}
        offers = [offer(name, name if name != "reweight" else None) for name in inspect_loop.REMEDIES]
        return {"claim": CLAIM, "shows": 0.1, "sources": [], "other_sources": [], "remedies": offers, "notes": []}

    monkeypatch.setattr(inspect_loop, "ask", answer)
    monkeypatch.setattr(sys, "argv", ["inspect_loop", "data", "--out", str(tmp_path), *words])
    arguments = parse_arguments()
    absolute = {"id": "s9", "rule": "digits > 9", "view": "absolute"}
    return choose({"slices": [absolute, *SLICES]}, arguments, Done(tmp_path / "loop.json", {})), asked


def test_the_first_confirmed_slice_gets_the_first_remedy_that_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, asked = opened(tmp_path, monkeypatch, {"s0": "refuted", "s1": "confirmed"})
    assert asked == [("confirm", "s0"), ("confirm", "s1"), ("remedy", "s1")]
    assert [one["verdict"] for one in found["opened"]] == ["refuted", "confirmed"]
    assert found["remedy"]["name"] == "objective" and found["remedy"]["confirmed"]
    assert opened(tmp_path, monkeypatch, {})[1] == []  # all of it is done


def test_without_a_confirmed_one_the_strongest_unopened_slice_is_treated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, asked = opened(tmp_path, monkeypatch, {"s0": "refuted", "s1": "refuted"}, "--open", "2")
    assert asked[-1] == ("remedy", "s2") and found["remedy"]["rule"] == "digits > 2"
    assert not found["remedy"]["confirmed"]
    said = summary({**found, "verified": {"refused": "stays sealed"}})
    assert said.startswith("digits > 0 refuted, digits > 1 refuted; objective for digits > 2 (not confirmed), 25.0%")
    assert said.endswith("not verified: stays sealed")


def test_without_an_offer_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = opened(tmp_path, monkeypatch, {"s0": "confirmed"}, "--open", "1", "--remedies", "reweight")
    assert found["remedy"] is None and len(found["remedies"]) == 1
    assert summary({**found, "verified": None}) == "digits > 0 confirmed; no remedy was trained"


def test_seeds_of_a_control_that_is_the_recipe_as_it_is() -> None:
    assert control_seeds({"same_recipe_control": False}, [0, 1]) == [0, 1]
    assert control_seeds({"same_recipe_control": True}, [0, 1]) == [2, 3]


def test_other_settings_and_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Done(tmp_path / "loop.json", {"steps": 1}).step("one", lambda: 1)
    with pytest.raises(InputError, match="is of other settings"):
        Done(tmp_path / "loop.json", {"steps": 2})
    assert Done(tmp_path / "loop.json", {"steps": 1}).step("one", lambda: 2) == 1
    assert "no inspection below" in ask("inspect", "confirm", "12345678")["refused"]


@pytest.mark.slow
def test_the_whole_loop_on_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_suite(tmp_path / "data" / "retrieval" / "planted", planted_suite(120, every=2))
    documents = planted_suite(40, seed=5, every=4)
    (tmp_path / "data" / "train").mkdir()
    with gzip.open(tmp_path / "data" / "train" / "pairs.jsonl.gz", "wt") as stream:
        for query, (text, _) in zip(documents.queries, documents.corpus, strict=True):
            stream.write(json.dumps({"query": query, "pos": [text]}) + "\n")
    base = write_tiny(tmp_path / "base", "gemma3", layers=2)
    words = ["inspect_loop", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--suite", "planted"]
    words += ["--train", "pairs", "--base", str(base), "--layers", "1", "--steps", "2", "--rows", "8", "--open", "0"]
    monkeypatch.setattr(sys, "argv", [*words, "--effect", "0.9", "--results", str(tmp_path / "results")])
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "elsewhere"))
    assert main() == 0
    (file,) = (tmp_path / "results").iterdir()
    found = json.loads(file.read_text())
    assert (
        found["opened"] == [] and not found["remedy"]["confirmed"] and found["inspected"]["suite"]["name"] == "planted"
    )
    assert set(found["runs"]) == {"before", "remedy", "control"} and len(found["runs"]["control"]) == 2
    assert found["verified"]["verdict"] == "refuted" and len(found["verified"]["alone"]) == 2
    assert str(tmp_path) not in json.dumps({key: found[key] for key in found if key != "settings"})
    assert documents.queries[0] not in file.read_text()
    runs = sorted((tmp_path / "out" / "home").glob("*/manifest.json"))
    assert main() == 0 and sorted((tmp_path / "out" / "home").glob("*/manifest.json")) == runs
