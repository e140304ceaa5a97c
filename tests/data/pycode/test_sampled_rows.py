"""A sample stands for code that is not built yet: the same kind of rows, from a part of the files."""

from pathlib import Path

import pytest
from tiny_code import write_code

from gemma4vec.data.loading import built_sources
from gemma4vec.data.loading.load_rows import SAMPLED, load_sources
from gemma4vec.data.pycode import sampled_beside, walk
from gemma4vec.data.pycode.build import load_or_build_pycode
from gemma4vec.data.pycode.sampled_beside import Wanted, answer_of_child
from gemma4vec.data.pycode.sampled_rows import PyCodeSample, sample_pycode
from gemma4vec.data.rows.rows import read_rows
from gemma4vec.recipe.sources import PycodeSource


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return write_code(tmp_path / "code")


def test_a_sample_has_rows_of_some_files_and_writes_nothing(code: Path, tmp_path: Path) -> None:
    sample = sample_pycode(tmp_path / "data", folder=code, negatives=2, size=4_000)
    assert sample is not None and 0 < sample.files < sample.all_files == 20
    assert not (tmp_path / "data").exists()
    built = load_or_build_pycode(tmp_path / "data", folder=code, negatives=2)
    assert sample.path == built.train
    queries = {row.query for row in read_rows(built.train).rows}
    assert 0 < len(sample.rows) < len(queries)
    assert all(row.pos[0].text.startswith("def ") and len(row.neg) == 2 for row in sample.rows)
    again = sample_pycode(tmp_path / "other", folder=code, negatives=2, size=4_000)
    assert again is not None and again.rows == sample.rows


def test_what_is_built_or_small_is_not_sampled(code: Path, tmp_path: Path) -> None:
    assert sample_pycode(tmp_path / "data", folder=code) is None  # 20 KB are built in no time
    load_or_build_pycode(tmp_path / "data", folder=code)
    assert sample_pycode(tmp_path / "data", folder=code, size=4_000) is None


def test_sources_are_sampled_only_where_that_is_asked_for(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(data: Path, *, folder: Path | None, negatives: int) -> PyCodeSample | None:
        return sample_pycode(data, folder=folder, negatives=negatives, size=4_000)

    monkeypatch.setattr(built_sources, "sample_pycode", small)
    source = PycodeSource(name="code", path=str(code), negatives=2)
    some = load_sources([source], hard_negatives=2, sample=True)
    facts = some.sources["code"]
    assert facts[SAMPLED] == {"files": facts[SAMPLED]["files"], "of": 20} and facts["rows"] == len(some.rows)
    assert some.dev_suite is None and some.test_suite is None
    (tmp_path / "drop.json").write_text("{}")
    listed = source.model_copy(update={"drop": str(tmp_path / "drop.json")})  # a list names rows of the whole
    assert built_sources.sample_source(listed) is None
    whole = load_sources([source], hard_negatives=2)
    assert SAMPLED not in whole.sources["code"] and len(whole.rows) > len(some.rows)
    assert whole.sources["code"]["path"] == facts["path"] and whole.test_suite is not None


def test_stages_look_at_the_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    monkeypatch.setattr(walk, "_walk_environment", lambda: looks.append("files") or [])
    monkeypatch.setattr(walk, "_read_versions", lambda: looks.append("versions") or {"python": "3"})
    with walk.one_look():
        for _ in range(2):
            assert walk.find_environment_files() == [] and walk.installed_versions() == {"python": "3"}
    assert looks == ["files", "versions"]
    walk.find_environment_files()
    assert looks == ["files", "versions", "files"]


def test_a_child_samples_what_its_caller_would(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sampled_beside, "usable_cores", lambda: 2)
    wanted = Wanted(tmp_path / "data", code, 2)
    missing = Wanted(tmp_path / "data", tmp_path / "gone", 2)
    with sampled_beside.sampled_beside([wanted, missing]):
        assert answer_of_child(missing) is None  # one core, one child
        answer = answer_of_child(wanted)
        assert answer is not None and answer.sample is None  # little code is built
        assert answer_of_child(wanted) is answer
    assert answer_of_child(wanted) is None
    with sampled_beside.sampled_beside([missing]):
        assert answer_of_child(missing) is None  # it failed, and the caller says why
    assert capfd.readouterr() == ("", "")


def test_a_sample_comes_back_from_its_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled_beside, "usable_cores", lambda: 2)
    code = write_code(tmp_path / "code")
    for number in range(30):  # more code than is built at once
        text = "\n".join(f"# {number} {line} " + "x" * 90 for line in range(10_000))
        (code / f"long{number}.py").write_text(text)
    wanted = Wanted(tmp_path / "data", code, 2)
    with sampled_beside.sampled_beside([wanted]):
        answer = answer_of_child(wanted)
    assert answer is not None and answer.sample is not None
    assert answer.sample == sample_pycode(tmp_path / "data", folder=code, negatives=2)
