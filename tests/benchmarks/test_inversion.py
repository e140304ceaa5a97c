"""`benchmarks.quality.inversion_data`: what the program trains and measures on, and what it must not."""

import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from benchmarks.quality import inversion_data as data
from tiny_model import TEXTS, write_tiny

from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.errors import InputError
from gemma4vec.text.text_hash import words_key

DIFFERENT = list({words_key(text): text for text in TEXTS}.values())
PARTS = {"one": DIFFERENT[:60], "two": [*DIFFERENT[50:90], "read " * 40]}  # ten texts of both, and a long one


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path, dict[str, Any]]:
    """(cleaned rows, folder of what is made, plan)."""
    clean, out = tmp_path / "clean", tmp_path / "out"
    clean.mkdir()
    for name, texts in PARTS.items():
        with gzip.open(clean / f"{name}.jsonl.gz", "wt") as lines:
            lines.writelines(
                json.dumps({"query": text, "pos": [f"{text}. More of number {place} stands here"]}) + "\n"
                for place, text in enumerate(texts)
            )
    plan = {
        "base": str(write_tiny(tmp_path / "base", "gemma3", layers=1)),
        "weights": dict.fromkeys(PARTS, 1),
        "text_tokens": 24,
        "prefix_tokens": 4,
        "texts_of_a_source": 50,
        "sentences": 30,
        "paraphrases": ["one"],
        "walk": {"queries": 12, "documents": 40},
        "least_held_out": 8,
    }
    assert data.write_texts(clean, out, plan) == {"one": 50, "two": 30}
    return clean, out, plan


def test_texts_stand_once_and_short_ones_alone(made: tuple[Path, Path, dict[str, Any]]) -> None:
    _, out, plan = made
    texts = data.all_texts(out, plan)
    assert len(texts) == 80 == len({words_key(text) for text in texts})
    assert not any(text.startswith("read read") for text in texts)


def test_phases_have_the_published_files(made: tuple[Path, Path, dict[str, Any]]) -> None:
    clean, out, plan = made
    counts = data.write_phase_files(clean, out, plan)
    with sqlite3.connect(out / "queries.db") as connection:
        assert {text for (text,) in connection.execute("SELECT query FROM queries")} == set(data.all_texts(out, plan))
    connection.close()
    sentences = (out / "text.txt").read_text().splitlines()
    assert len(sentences) == counts["sentences"] <= 30 and not any(". More" in one for one in sentences)
    assert len((out / "paraphrases.jsonl").read_text().splitlines()) == counts["paraphrases"] == 50


def test_the_suite_to_walk_on_has_each_query_with_its_document(made: tuple[Path, Path, dict[str, Any]]) -> None:
    clean, out, plan = made
    assert data.write_walk_suite(clean, out, plan)["queries"] == 12
    suite: Any = open_suite(str(out / "walk"))
    documents = dict(zip(suite.corpus_ids, suite.corpus, strict=True))
    for key, query in zip(suite.query_ids, suite.queries, strict=True):
        (judged,) = suite.qrels[key]
        assert documents[judged].text.startswith(data.one_line(query))


def test_only_texts_that_a_decoder_names_as_held_out_are_asked_for(
    made: tuple[Path, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, plan = made
    hidden = {
        name: (out / "texts" / f"{name}.txt").read_text().splitlines()[:count]
        for name, count in (("one", 9), ("two", 7))
    }
    hashes = tuple(words_key(text) for texts in hidden.values() for text in texts)
    monkeypatch.setattr(data, "read_facts", lambda _: type("Facts", (), {"held_out": hashes}))
    (file,) = data.held_out_files(out, plan, out, 5)  # two has seven, fewer than eight
    found = file.read_text().splitlines()
    assert file.name == "one.txt" and len(found) == 5 and set(found) <= set(hidden["one"])
    with pytest.raises(InputError, match="no source has 10 texts"):
        data.held_out_files(out, plan | {"least_held_out": 10}, out, 5)
