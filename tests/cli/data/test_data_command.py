"""`gemma4vec data pycode`, as typed."""

import json

from gemma4vec.cli.main import execute

FUNCTION = (
    'def {0}_it({0}_a):\n    """{0} every one of the {1}."""\n    {0}_b = {0}_a\n    {0}_c = {0}_b\n    return {0}_c\n'
)
WORDS = {"sort": "apples", "merge": "graphs", "count": "letters", "split": "clouds", "paint": "rivers"}


def write_code(folder):
    folder.mkdir()
    for verb, noun in WORDS.items():
        (folder / f"{verb}.py").write_text(FUNCTION.format(verb, noun))
    return folder


def test_pycode_prints_counts_or_json(tmp_path, capsys):
    code = write_code(tmp_path / "code")
    assert execute(["data", "pycode", str(code), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "training rows" in printed.out and "reading Python files: 5" in printed.err
    assert execute(["data", "pycode", str(code), "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["path"] == str(tmp_path / "out") and printed["counts"]["pairs"] == 5
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["content_hash"] == printed["content_hash"]


def test_without_out_it_goes_home(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "home"))
    assert execute(["data", "pycode", str(write_code(tmp_path / "code"))]) == 0
    assert len(list((tmp_path / "home" / "data").glob("pycode-*/train.jsonl.gz"))) == 1


def test_a_missing_folder_is_bad_input(tmp_path, capsys):
    assert execute(["data", "pycode", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
