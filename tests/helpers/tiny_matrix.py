"""A matrix of tiny models on made-up rows: two recipes, two suites."""

import json
from pathlib import Path

import yaml
from tiny_model import write_tiny

from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.text.prompts import Document

VERBS = ("read", "write", "sort", "open", "close", "return")
THINGS = ("file", "tree", "graph", "list")
COLOURS = ("red", "green", "blue")


def write_place(root: Path) -> Path:
    """A folder with a base, rows, three suites and the recipes `mean` and `last`."""
    write_tiny(root / "base", "llama", layers=2)
    rows = [Row(f"{verb} the {thing}", [Document(f"def {thing}_{verb}")]) for verb in VERBS for thing in THINGS]
    write_rows(root / "rows.jsonl", rows)
    write_suites(root / "suites")
    for name, readout in (("mean", "mean"), ("last", "last_token")):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(_recipe(root, name, readout)), encoding="utf-8")
    return root


def write_suites(folder: Path) -> None:
    """The suites `tune`, `test-a` and `test-b`, each with texts of its own."""
    for number, name in enumerate(("tune", "test-a", "test-b")):
        write_suite(folder / name, _suite(name, COLOURS[number]))


def _suite(name: str, colour: str) -> RetrievalSuite:
    pairs = [(verb, thing) for verb in VERBS for thing in THINGS]
    ids = [f"{verb}-{thing}" for verb, thing in pairs]
    return RetrievalSuite(
        name=name,
        corpus_ids=ids,
        corpus=[Document(f"def {thing}_{verb} {colour}") for verb, thing in pairs],
        query_ids=ids[::2],
        queries=[f"{verb} a {colour} {thing}" for verb, thing in pairs[::2]],
        qrels={key: {key: 1} for key in ids[::2]},
    )


def _recipe(root: Path, name: str, readout: str) -> dict[str, object]:
    stage = {
        "data": [{"name": "rows", "path": str(root / "rows.jsonl")}],
        "batch": {"rows": 8},
        "layout": {"row_tokens": 32, "tokens_per_forward": 256, "compile": False},
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 1},
        "budget": {"minutes": 1},
    }
    return {
        "name": name,
        "model": {
            "base": str(root / "base"),
            "dtype": "fp32",
            "readout": {"name": readout},
            "max_tokens": 48,
            "lora": {"rank": 2},
        },
        "stages": [stage],
    }


def write_matrix(root: Path, name: str = "tiny", **changes: object) -> Path:
    """The matrix file; `changes` replace its keys."""
    matrix = {
        "name": name,
        "variables": {"suites": None},
        "recipes": ["mean", "last.yaml"],
        "learning_rates": [0.001, 0.01],
        "budget": {"rows": 32},
        "dev": [{"suite": "${suites}/tune", "max_queries": 10}],
        "final": [{"suite": "${suites}/test-a"}, {"suite": "${suites}/test-b", "max_documents": 20}],
        "control": "mean",
        "overrides": ["stages.*.evaluation.checkpoint_seconds=0"],
    } | changes
    file = root / f"{name}.yaml"
    file.write_text(json.dumps({key: value for key, value in matrix.items() if value is not None}), encoding="utf-8")
    return file
