"""Catalog suites with the real client and a local hub: requested at the pinned commit, cached, and recorded with it.

Mirrors on disk are tested in test_open_suite.py.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_hub import client_environment, serving
from tiny_sources import write_parquet

from gemma4vec.data.suites import hub_tables
from gemma4vec.data.suites.catalog import CATALOG, COMPACT, NANO, HubTask

# Asked for in one process, since the client reads its address when it is imported; those after OFFLINE without a hub.
ASKED = ["nanobeir-compact", "germandpr", "germansts", "nanobeir-de", "OFFLINE", "nanobeir-compact", "germansts-dev"]
PROGRAM = """
import json, logging, os, sys
from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.errors import InputError
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("gemma4vec").addHandler(handler)
logging.getLogger("gemma4vec").setLevel(logging.INFO)
for name in json.load(sys.stdin):
    if name == "OFFLINE":
        os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
        continue
    said = []
    try:
        suite = open_suite(name)
        members = getattr(suite, "members", [suite])
        found = {"name": suite.name, "role": suite.role, "members": [one.name for one in members]}
        found |= {"sources": [one.source for one in members], "fingerprint": suite.fingerprint}
    except InputError as error:
        found = {"error": str(error)}
    print(json.dumps({**found, "said": said}))
"""


def add_task(root: Path, task: HubTask, elsewhere: str | None = None) -> None:
    """Write a retrieval task's tables; the corpus goes to `elsewhere`, which only the README names, if it is given."""
    folder = root / task.repository
    prefix = f"{task.language}-" if task.language else ""
    name = f"{task.split}-00000-of-00001.parquet"
    corpus = {"_id": [f"d{n}" for n in range(6)], "text": [f"{task.name} {n}" for n in range(6)]}
    write_parquet(folder / (elsewhere or f"{prefix}corpus") / name, {**corpus, "title": [""] * 6})
    write_parquet(folder / f"{prefix}queries" / name, {"_id": ["q0", "q1"], "text": ["which 0", "which 1"]})
    judged = {"query-id": ["q0", "q1"], "corpus-id": ["d0", "d1"], "score": [1, 1]}
    write_parquet(folder / f"{prefix}qrels" / name, judged)
    if elsewhere:
        front = f"- config_name: {prefix}corpus\n  data_files:\n  - {{split: {task.split}, path: {elsewhere}/*}}\n"
        (folder / "README.md").write_text(f"---\nconfigs:\n{front}---\ntext\n")


def a_hub(root: Path) -> Path:
    """Write the suites' data sets at their pinned commits, except for one data set, whose commit is gone."""
    commits = {}
    for name in ("nanobeir-compact", "germandpr", "nanobeir-de"):
        for task in CATALOG[name].tasks:
            add_task(root, task, elsewhere="elsewhere" if name == "germandpr" else None)
            commits[task.repository] = task.revision
    (sts,) = CATALOG["germansts"].tasks
    for split in ("test", "validation"):
        columns: dict[str, list[Any]] = {
            "sentence1": [*"abcde"],
            "sentence2": [*"fghij"],
            "score": [*map(float, range(5))],
        }
        write_parquet(root / sts.repository / "data" / f"{split}-00000-of-00001.parquet", columns)
    commits[sts.repository] = sts.revision
    commits[CATALOG["nanobeir-de"].tasks[-1].repository] = "f" * 40
    (root / "commits.json").write_text(json.dumps(commits))
    return root


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the result of each request in `ASKED`."""
    folder = tmp_path_factory.mktemp("hub")
    with serving(a_hub(folder / "files")) as address:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps(ASKED),
            env=client_environment(address, folder),
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_suite_is_downloaded_at_its_commit(answers: list[dict[str, Any]]) -> None:
    compact = answers[0]
    assert (compact["name"], compact["role"]) == ("nanobeir-compact", "dev")
    assert [name.split("-")[0] for name in compact["members"]] == list(COMPACT)
    assert [source["resolved_revision"] for source in compact["sources"]] == [NANO[name] for name in COMPACT]
    assert len(compact["said"]) == len(COMPACT) and "downloading the data set mteb/Nano" in compact["said"][0]
    assert answers[2]["members"] == ["germansts"]


def test_tables_that_only_the_readme_names_are_downloaded_too(answers: list[dict[str, Any]]) -> None:
    (task,) = CATALOG["germandpr"].tasks
    assert answers[1]["sources"][0]["resolved_revision"] == task.revision


def test_what_was_downloaded_needs_no_hub(answers: list[dict[str, Any]]) -> None:
    again, other_split = answers[4:]
    assert again["said"] == [] and again["fingerprint"] == answers[0]["fingerprint"]
    assert other_split["name"] == "germansts-dev" and other_split["said"] == []  # another split of what was fetched


def test_a_commit_that_is_gone_is_refused_in_one_line(answers: list[dict[str, Any]]) -> None:
    error = answers[3]["error"]
    assert "the data set mteb/MultilingualNanoTouche2020Retrieval cannot be downloaded from the hub" in error
    assert "\n" not in error


def test_a_readme_names_files_of_its_own_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    (folder / "data").mkdir(parents=True)
    for file in (tmp_path / "secret.jsonl", folder / "data" / "a.jsonl"):
        file.write_text("{}")
    named = ["../secret.jsonl", "data/../../secret.jsonl", str(tmp_path / "secret.jsonl"), "", "data/*.jsonl"]
    assert hub_tables._glob(folder, named) == [folder / "data" / "a.jsonl"]
