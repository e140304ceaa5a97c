"""A child of ours imports what its parent does, whatever lies in the working folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gemma4vec.data.pycode.walk import SourceFile
from gemma4vec.data.pycode.worker import extract_files
from gemma4vec.machine.processes.child_environment import child_environment


def test_a_child_imports_from_where_its_parent_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "only_here.py").write_text("")
    (tmp_path / "colorsys.py").write_text("raise SystemExit('a file of the working folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "own")
    monkeypatch.setenv("PYTHONPATH", "/no/such/folder")
    program = "import colorsys, json, only_here, sys, gemma4vec; print(json.dumps([gemma4vec.__file__, sys.path]))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=child_environment(), capture_output=True, text=True, check=True
    )
    ours, places = json.loads(done.stdout)
    assert Path(ours).samefile(Path(sys.modules["gemma4vec"].__file__ or ""))
    assert set(filter(None, sys.path)) <= set(places) and "/no/such/folder" not in places
    assert os.environ["PYTHONPATH"] == "/no/such/folder"  # ours stays as it is


def test_python_files_are_read_beside_one_with_the_name_of_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit('a file of the working folder')")
    text = 'def add(a, b):\n    "Add two numbers and return their sum."\n    c = a\n    c += b\n    return c\n'
    (tmp_path / "sums.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    file = SourceFile(str(tmp_path), "sums.py", "sums", len(text), 0)
    beside, here = extract_files([file], processes=2), extract_files([file], processes=1)
    assert beside == here and len(here.functions) == 1
