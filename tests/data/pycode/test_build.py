"""pycode end to end on a small synthetic repository, and properties of its split."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.pycode import walk as pycode_walk
from gemma4vec.data.pycode.build import build_pycode, load_or_build_pycode, load_pycode, read_functions
from gemma4vec.data.pycode.extract import Function
from gemma4vec.data.pycode.near_duplicates import find_near_pairs, function_tokens
from gemma4vec.data.pycode.split import draw_units, split_environment, split_folder
from gemma4vec.data.pycode.walk import find_environment_files, find_folder_files
from gemma4vec.data.rows.rows import read_rows
from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import source_of

VERBS = ("sort", "merge", "count", "split", "paint", "weigh", "fold", "bake", "print", "guess")
NOUNS = ("apples", "graphs", "letters", "clouds", "rivers", "tables", "windows", "engines")


def function_source(verb, noun, extra=""):
    words = [f"{verb}_{noun}_{letter}" for letter in "abcdefgh"]
    return (
        f'def {verb}_{noun}({words[0]}):\n    """{verb.title()} all the {noun} {extra}of a house."""\n'
        f"    {words[1]} = {words[0]} + 1\n"
        f"    {words[2]} = {words[1]} * {words[3]}\n    return {words[2]}, {words[4]}\n"
    )


def repository(root: Path, packages=10) -> Path:
    for place in range(packages):
        package = root / f"package{place}"
        package.mkdir(parents=True)
        for half in (0, 1):
            nouns = NOUNS[half * 4 : half * 4 + 4]
            text = "\n\n".join(function_source(f"{VERBS[place]}", noun) for noun in nouns)
            (package / f"module{half}.py").write_text(text)
    return root


def function(path, name="f", source=None, query="Sort all the apples.", package=None):
    source = f"def {name}({path}): {path}_x" if source is None else source
    return Function(f"{path}:{name}", package or path.split("/")[0], path, name, 1, source, query)


def test_a_build_is_complete_and_clean(log_lines, tmp_path):
    built = build_pycode(tmp_path / "out", folder=repository(tmp_path / "code"))
    test, rows = load_suite(built.test), read_rows(built.train).rows
    assert test.code and test.role == "dev"
    dev = load_suite(built.dev)
    counts = built.manifest["counts"]
    assert counts["pairs"] == 80 == len(rows) + len(test.queries) + len(dev.queries)
    assert counts["train_rows"] == len(rows) and counts["test_queries"] == len(test.queries) == 16
    assert built.manifest["split"]["unit"] == "package" and "test queries" in built.manifest["warnings"][0]
    documents = {document.text for document in test.corpus} | {document.text for document in dev.corpus}
    trained = {document.text for row in rows for document in (*row.pos, *row.neg)}
    assert not documents & trained and '"""' not in "".join(trained | documents)
    assert all(len(row.neg) == 4 and row.pos[0] not in row.neg for row in rows)
    functions = {found.id: found for found in read_functions(built.functions)}
    assert len(functions) == 80
    for query_id, query in zip(test.query_ids, test.queries, strict=True):
        assert functions[query_id].query == query and test.qrels[query_id] == {query_id: 1}
    assert log_lines and load_pycode(built.path).manifest == built.manifest


def test_the_hash_is_the_content_and_nothing_else(tmp_path, monkeypatch):
    first = build_pycode(tmp_path / "a", folder=repository(tmp_path / "here" / "code"))
    monkeypatch.setattr("gemma4vec.data.pycode.worker.SHARD_BYTES", 5_000)
    second = build_pycode(tmp_path / "b", folder=repository(tmp_path / "there" / "deeper" / "other"), processes=2)
    assert first.content_hash == second.content_hash
    assert first.train.read_bytes() == second.train.read_bytes()
    assert str(tmp_path) not in json.dumps(first.manifest)
    path = tmp_path / "here" / "code" / "package0" / "module0.py"
    path.write_text(path.read_text().replace("+ 1", "+ 2"))
    assert build_pycode(tmp_path / "c", folder=tmp_path / "here" / "code").content_hash != first.content_hash


def test_the_hash_does_not_depend_on_pythons_hash_seed(tmp_path):
    folder = repository(tmp_path / "code", 3)
    code = (
        "import sys; from pathlib import Path; from gemma4vec.data.pycode.build import build_pycode;"
        "print(build_pycode(Path(sys.argv[2]), folder=Path(sys.argv[1])).content_hash)"
    )
    found = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code, str(folder), str(tmp_path / seed)]
        found.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(found) == 1


def test_a_built_folder_is_reused_until_the_code_changes(log_lines, tmp_path):
    folder = repository(tmp_path / "code", 3)
    first = load_or_build_pycode(tmp_path / "data", folder=folder)
    told = len(log_lines)
    assert load_or_build_pycode(tmp_path / "data", folder=folder).path == first.path
    assert len(log_lines) == told > 0
    (folder / "package0" / "new.py").write_text(function_source("wash", "dishes"))
    assert load_or_build_pycode(tmp_path / "data", folder=folder).path != first.path
    assert load_or_build_pycode(tmp_path / "data", folder=folder, negatives=1).path != first.path


def test_few_packages_are_split_by_file_and_one_file_cannot_be(tmp_path):
    built = build_pycode(tmp_path / "out", folder=repository(tmp_path / "code", 2))
    assert built.manifest["split"]["unit"] == "file"
    assert all(name.endswith(".py") for name in built.manifest["split"]["test"])
    single = tmp_path / "single"
    single.mkdir()
    (single / "one.py").write_text(function_source("sort", "apples"))
    with pytest.raises(InputError, match=r"single: no held-out function has a docstring sentence"):
        build_pycode(tmp_path / "out2", folder=single)
    assert not (tmp_path / "out2").exists()


def test_named_packages_are_held_out_of_a_folder(tmp_path):
    built = build_pycode(tmp_path / "out", folder=repository(tmp_path / "code"), held_out=["package3", "absent"])
    assert {key.split("/")[0] for key in load_suite(built.test).corpus_ids} == {"package3"}
    assert "missing held-out packages: absent" in built.manifest["warnings"]


def test_missing_held_out_packages_are_named_with_what_to_install(log_lines, tmp_path, monkeypatch):
    code = repository(tmp_path / "code")
    (code / "package3").rename(code / "rich")
    monkeypatch.setattr("gemma4vec.data.pycode.build.find_environment_files", lambda: find_folder_files(code))
    loaded = load_sources([source_of(name="code", source="pycode")])
    assert {key.split("/")[0] for key in load_suite(loaded.test_suite).corpus_ids} == {"rich"}
    missing = "huggingface_hub, jinja2, networkx, pydantic"
    hint = f"code: missing held-out packages: {missing}; install them: pip install 'gemma4vec[quickstart]'"
    assert log_lines.count(hint) == 1


def test_copies_of_held_out_packages_are_left_out():
    functions = [
        function("rich/a.py"),
        function("pip/_vendor/rich/b.py", query="Paint every wall."),
        function("other/rich.py", query="Guess a number."),
        function("other/enriched.py", query="Bake some bread."),
        function("third/c.py", query="Fold the paper."),
    ]
    split = split_environment(functions, ["rich"])
    assert [found.path for found in split.test] == ["rich/a.py"]
    assert {found.path for found in split.train + split.dev} == {"other/enriched.py", "third/c.py"}
    assert split.reasons["copy of a held-out package"] == 2


def test_near_duplicates_stay_on_the_test_side():
    source = "def f(a): " + " ".join(f"word{number}" for number in range(20))
    functions = [
        function("aaa/copy.py", source=source + " more", query="Paint every wall."),
        function("rich/a.py", source=source, query="Sort all the apples."),
        function("rich/b.py", query="Sort all the apples."),
        function("zzz/asks_the_same.py", query="Sorts all the apple."),
        function("zzz/d.py", query="Guess a number."),
        function("yyy/e.py", query="Guess another thing entirely."),
    ]
    split = split_environment(functions, ["rich"])
    assert [found.query for found in split.test] == ["Sort all the apples.", None]
    assert split.answers["rich/a.py:f"][0] == "rich/b.py:f"
    rest = {found.path: found.query for found in split.train + split.dev}
    assert rest == {
        "zzz/asks_the_same.py": None,
        "zzz/d.py": "Guess a number.",
        "yyy/e.py": "Guess another thing entirely.",
    }
    kept = split.test + split.dev + split.train
    assert len(find_near_pairs([function_tokens(found.source) for found in kept])) == 0


def test_equal_words_in_another_order_are_no_answer():
    functions = [
        function("rich/a.py", query="Convert red to blue"),
        function("rich/b.py", query="Convert blue to red"),
    ]
    split = split_environment(functions, ["rich"])
    assert split.answers == {} and [found.query for found in split.test] == ["Convert red to blue", None]


def test_new_packages_change_no_test_function():
    old = [function("rich/a.py"), function("other/b.py", query="Guess a number.")]
    new = [function("aaa/c.py", source=old[0].source, query="Bake some bread."), function("aaa/d.py")]
    assert split_environment(old, ["rich"]).test == split_environment([*new, *old], ["rich"]).test


def test_units_are_drawn_near_their_share():
    sizes = Counter({f"unit{number}": 5 + number % 7 for number in range(100)})
    drawn = draw_units(sizes, 0.2)
    assert 0.2 <= sum(sizes[unit] for unit in drawn) / sum(sizes.values()) <= 0.3
    assert draw_units(Counter(one=1), 0.2) == set() and len(draw_units(Counter(one=1, two=9), 0.2)) == 1


def test_a_dominating_package_means_files():
    functions = [function(f"big/{n}.py", query=f"Guess number {n} of it.") for n in range(20)]
    functions += [function(f"small{n}/a.py", query=f"Paint the wall {n}.") for n in range(6)]
    assert split_folder(functions, None).unit == "file"


def test_walking_skips_other_code_than_the_users(tmp_path):
    code = "a.py pkg/b.py src/gemma4vec/c.py"
    others = "test_x.py pkg/conftest.py pkg/tests/d.py .git/e.py venv/f.py mine/pyvenv.cfg mine/lib/g.py"
    for path in f"{code} {others} node_modules/h.py build/i.py pkg/x_test.py".split():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "pkg" / "link.py").symlink_to(tmp_path / "nowhere.py")
    found = find_folder_files(tmp_path)
    assert [(file.path, file.package) for file in found] == [
        ("a.py", "a"),
        ("pkg/b.py", "pkg"),
        ("src/gemma4vec/c.py", "src"),
    ]
    with pytest.raises(InputError, match="no such folder"):
        find_folder_files(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no Python files"):
        find_folder_files(tmp_path / "empty")


def test_the_environment_is_the_standard_library_and_packages_without_us(tmp_path, monkeypatch):
    stdlib, site = tmp_path / "stdlib", tmp_path / "stdlib" / "site-packages"
    library = "json/decoder.py idlelib/a.py test/b.py config-3.11/c.py"
    packages = "rich/d.py gemma4vec/e.py __editable___x_finder.py rich/tests/f.py x-1.0.dist-info/g.py"
    for path in [*library.split(), *(f"site-packages/{name}" for name in packages.split())]:
        (stdlib / path).parent.mkdir(parents=True, exist_ok=True)
        (stdlib / path).write_text("")
    paths = {"stdlib": str(stdlib), "purelib": str(site), "platlib": str(site)}
    monkeypatch.setattr(pycode_walk.sysconfig, "get_paths", lambda: paths)
    assert [file.path for file in find_environment_files()] == ["json/decoder.py", "rich/d.py"]


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="build it again"):
        load_pycode(tmp_path)
