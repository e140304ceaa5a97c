"""A hub's data sets, with the real client against a hub of our own: layouts, subsets, commits, refusals."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_hub import COMMIT, client_environment, serving
from tiny_sources import write_parquet

from gemma4vec.data.sources.hub_files import choose_files
from gemma4vec.errors import InputError

SUBSETS = ("triplet", "pair", "ntuple", "judged")
README = "---\nconfigs:\n" + "".join(
    f"- config_name: {name}\n  data_files:\n  - {{split: train, path: {name}/train-*}}\n" for name in SUBSETS
)
# What is asked for in one process, since the client reads its address when it is imported; the last offline.
ASKED = {
    "uneven": ("acme/uneven", {}),
    "triplet": ("acme/tuples", {"subset": "triplet"}),
    "pair": ("acme/tuples", {"subset": "pair"}),
    "ntuple": (f"acme/tuples@{COMMIT}", {"subset": "ntuple"}),
    "lines": ("acme/lines@main", {}),
    "array": ("acme/array", {}),
    "judged": ("acme/tuples", {"subset": "judged"}),
    "no subset": ("acme/tuples", {}),
    "no split": ("acme/tuples", {"subset": "pair", "split": "test"}),
    "missing": ("acme/none", {}),
    "gated": ("gated/secret", {}),
    "revision": ("acme/lines@v9", {}),
}
PROGRAM = """
import json, logging, os, sys
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import source_of
class Lines(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger("gemma4vec").addHandler(Lines())
logging.getLogger("gemma4vec").setLevel(logging.INFO)
for line in sys.stdin:
    told = json.loads(line)
    if told.pop("offline"):
        os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
    said = []
    try:
        loaded = load_sources([source_of(name="s", source="datasets", **told)])
        rows = [[row.query, row.pos[0].text, len(row.neg)] for row in loaded.rows]
        found = {**loaded.sources["s"], "rows": rows}
    except InputError as error:
        found = {"error": str(error)}
    print(json.dumps({**found, "said": said}))
"""


def a_hub(root: Path) -> Path:
    """Data sets in the layouts that are found on the hub."""
    pairs = {"query": ["q0", "q1"], "passage": ["p0", "p1"]}
    write_parquet(root / "acme/uneven/one.parquet", {**pairs, "negative_1": ["n", "n"]})
    write_parquet(root / "acme/uneven/two.parquet", {**pairs, **{f"negative_{n}": ["n", "n"] for n in range(1, 25)}})
    anchors = {"anchor": ["q0", "q1"], "positive": ["p0", "p1"]}
    columns = {"pair": anchors, "triplet": {**anchors, "negative": ["n", "n"]}}
    columns["ntuple"] = {**anchors, **{f"negative_{n}": ["n", "n"] for n in range(1, 6)}}
    columns["judged"] = {"sentence1": ["q0"], "sentence2": ["p0"], "label": [0]}  # type: ignore[dict-item]
    for name in SUBSETS:
        write_parquet(root / f"acme/tuples/{name}/train-00000-of-00001.parquet", columns[name])
    (root / "acme/tuples/README.md").write_text(README + "---\nText.\n")
    rows = [{"query": f"q{n}", "pos": [f"p{n}"]} for n in range(2)]
    (root / "acme/lines").mkdir()
    (root / "acme/lines/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "acme/array").mkdir()
    (root / "acme/array/train.json").write_text(json.dumps(rows))  # a kind of file that only the library reads
    return root


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each of `ASKED` gives, and two of them once more without a hub."""
    folder = tmp_path_factory.mktemp("hub")
    asked = {name: {"path": path, **more, "offline": False} for name, (path, more) in ASKED.items()}
    for again in ("triplet", "ntuple"):
        asked[f"{again} offline"] = {**asked[again], "offline": True}
    asked["new offline"] = {"path": "acme/new", "offline": True}
    with serving(a_hub(folder / "files")) as address:
        lines = "".join(json.dumps(one) + "\n" for one in asked.values())
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=lines,
            env=client_environment(address, folder),
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    return dict(zip(asked, map(json.loads, done.stdout.splitlines()), strict=True))


def rows(negatives: int) -> list[list[Any]]:
    return [["q0", "p0", negatives], ["q1", "p1", negatives]]


def test_layouts_and_the_commit_that_was_read(answers: dict[str, Any]) -> None:
    assert answers["uneven"]["rows"] == rows(1) + rows(24)
    assert answers["triplet"]["rows"] == rows(1) and answers["pair"]["rows"] == rows(0)
    assert answers["ntuple"]["rows"] == rows(5) and answers["lines"]["rows"] == rows(0)
    assert answers["array"]["rows"] == rows(0)
    good = [one for one in answers.values() if "error" not in one]
    assert len(good) == 8 and all(one["revision"] == COMMIT for one in good)


def test_what_was_read_before_is_read_without_a_hub(answers: dict[str, Any]) -> None:
    assert answers["triplet offline"]["rows"] == rows(1)
    assert "hub is out of reach" in answers["triplet offline"]["said"][0]
    assert answers["ntuple offline"]["rows"] == rows(5) and answers["ntuple offline"]["said"] == []  # a fixed commit


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("judged", "column 'label' may mark some pairs as bad"),
        (
            "no subset",
            "acme/tuples has several subsets; name one as the source's subset: triplet, pair, ntuple",
        ),
        ("no split", "acme/tuples has no split 'test'; it has train"),
        ("missing", "the data set acme/none cannot be downloaded from the hub: there is no such data set"),
        ("gated", "gated/secret cannot be downloaded from the hub: access is restricted; accept its terms"),
        ("revision", "acme/lines@v9 cannot be downloaded from the hub: it has no such revision"),
        ("new offline", "acme/new is not cached on this machine and the hub is out of reach"),
    ],
)
def test_what_cannot_be_had_is_one_line(answers: dict[str, Any], name: str, said: str) -> None:
    assert said in answers[name]["error"] and "\n" not in answers[name]["error"]


def test_files_are_chosen_as_the_readme_or_their_names_say() -> None:
    names = ["README.md", "en/train.jsonl", "en/test.jsonl", "de/train.jsonl", "fr.parquet", "notes.pdf"]
    assert choose_files("x", names[:4], "", "en", "train") == ["en/train.jsonl"]
    assert choose_files("x", names[:4], "", None, "train") == ["en/train.jsonl", "de/train.jsonl"]
    assert choose_files("x", names, "", "fr", "train") == ["fr.parquet"]
    with pytest.raises(InputError, match="no folder or file of the subset 'it'; it has en, de, fr"):
        choose_files("x", names, "", "it", "train")
    with pytest.raises(InputError, match="no file is named after the split 'dev'; there are files of train, test"):
        choose_files("x", names[:4], "", "en", "dev")
    told = (
        "---\nconfigs:\n- config_name: a\n  data_files: '*/train.jsonl'\n- config_name: b\n  data_files: notes.pdf\n---"
    )
    assert choose_files("x", names, told, "a", "train") == ["en/train.jsonl", "de/train.jsonl"]
    assert choose_files("x", names, told, "b", "train") == []  # for the datasets library
    assert choose_files("x", ["data.zip"], "", None, "train") == []
