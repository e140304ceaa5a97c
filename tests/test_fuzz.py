"""`make fuzz` can fail: each fault that it looks for is found; a kept input is the same input; a few inputs pass."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from filelock import FileLock

from fuzzing import judge, odd_files, place
from fuzzing.inputs import Change, Input
from fuzzing.kinds import LIGHT
from fuzzing.maker import Maker
from fuzzing.sandbox import Outcome, Sandbox

ROOT = Path(__file__).resolve().parent.parent
ONE = Input("rows", "1/2", ("data", "read"), as_json=True)
FINE = Outcome(0, None, False, 0.1, b'{"rows": 3}\n', b"", ())


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"code": 2, "stdout": b"", "stderr": b"error: rows.jsonl line 1: no query\n"}, []),
        (
            {"code": 1, "stdout": b"", "stderr": b"error: unexpected KeyError: 'a'\n"},
            ["error: unexpected KeyError: 'a'"],
        ),
        ({"stderr": b"Traceback (most recent call last):\n  File x\nKeyError: 'a'\n"}, ["KeyError: 'a'"]),
        ({"stderr": b"Exception ignored in: <x>\n"}, ["Exception ignored in: <x>"]),
        ({"code": 3, "stderr": b"error: x\n"}, ["exit code 3"]),
        ({"code": 130, "stderr": b"interrupted\n"}, ["exit code 130"]),
        ({"code": 1, "stdout": b"", "stderr": b""}, ["a failure without a word on stderr"]),
        ({"code": None, "signal": 11}, ["signal 11"]),
        ({"code": None, "hung": True, "seconds": 240.0}, ["hang: 240 s"]),
        ({"stdout": b"[1] [2]"}, ["stdout is not JSON: Extra data: line 1 column 5 (char 4)"]),
        ({"stdout": b'{"a": NaN}'}, ["stdout is not JSON: NaN is not JSON"]),
        ({"stdout": b'"\xff"'}, ["stdout is not utf-8"]),
        ({"stdout": b""}, ["no JSON on stdout"]),
        ({"outside": ("open: /etc/x",)}, ["outside: open: /etc/x"]),
    ],
)
def test_every_fault_is_found(changes: dict[str, object], found: list[str]) -> None:
    assert judge.faults(ONE, replace(FINE, **changes)) == found


def _write_outside() -> int:
    Path("../escaped").write_text("x")
    return 0


def _write_inside() -> int:
    Path("x").write_text("x")
    print("{}")
    return 0


def _connect() -> int:
    import socket

    socket.socket().connect(("127.0.0.1", 9))
    return 0


def _die() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def _sleep() -> int:
    time.sleep(60)
    return 0


def _raise() -> int:
    raise KeyError("a")


@pytest.mark.parametrize(
    ("work", "found"),
    [
        (_write_inside, []),
        (_write_outside, ["exit code None", "outside: open: ../escaped"]),
        (_connect, ["exit code None", "outside: socket.connect: ('127.0.0.1', 9)"]),
        (_die, ["signal 9"]),
        (_sleep, ["hang: 1 s"]),
        (_raise, ["exit code None"]),
    ],
)
def test_a_child_is_watched(tmp_path: Path, work: Callable[[], int], found: list[str]) -> None:
    sandbox = Sandbox(tmp_path / "fuzz" / "0")
    sandbox.template.mkdir(parents=True)
    sandbox.fresh(())
    limit = 1.0 if work is _sleep else 30.0
    assert [fault for fault in judge.faults(ONE, sandbox.run(work, ONE, limit)) if "JSON" not in fault] == found
    assert sorted(path.name for path in sandbox.root.parent.iterdir()) == ["0"]


def test_a_file_without_permissions_cannot_be_read(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "fuzz" / "0")
    sandbox.template.mkdir(parents=True)
    sandbox.fresh(())
    Change("write", "closed", b"x").apply(sandbox.place)
    Change("mode", "closed", mode=0).apply(sandbox.place)

    def work() -> int:
        try:
            Path("closed").read_bytes()
        except PermissionError:
            return 2
        return 0

    assert sandbox.run(work, ONE, 30.0).code == 2


def test_a_kept_input_is_the_same_input(tmp_path: Path) -> None:
    changes = (Change("write", "a/b", b"\xff\x00"), Change("link", "c", target="c"), Change("mode", "d", mode=0))
    one = replace(ONE, words=("data", "a\udcffb"), changes=changes, environment={"HOME": None}, stdin=b"\xfe")
    file = tmp_path / "kept.json"
    file.write_text(f'{{"input": {judge.json.dumps(one.to_json())}}}', encoding="utf-8")
    assert Input.load(file) == one


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    sandbox = Sandbox(tmp_path_factory.mktemp("fuzz") / "0")
    sandbox.root.mkdir()
    place.make(sandbox, with_models=False)
    return sandbox


def test_a_seed_makes_the_same_inputs_again(filled: Sandbox) -> None:
    first, second = Maker(filled, LIGHT, []), Maker(filled, LIGHT, [])
    made = [first.make(7, number) for number in range(60)]
    assert made == [second.make(7, number) for number in range(60)]
    assert len({one.kind for one in made}) == len(LIGHT)
    assert made != [second.make(8, number) for number in range(60)]


def test_an_odd_file_differs(filled: Sandbox) -> None:
    """Of every format: nearly all changes leave other bytes or another kind of file."""
    for name in (
        "recipe.yaml",
        "rows.jsonl",
        "rows.jsonl.gz",
        "tables/rows.csv",
        "tables/rows.parquet",
        "tables/texts.sqlite",
    ):
        file = filled.template / name
        made = [odd_files.changes(file, name, Random(number))[0] for number in range(20)]
        assert sum(one.action != "write" or one.content != file.read_bytes() for one in made) >= 17, name


def test_forty_inputs_pass(tmp_path: Path) -> None:
    kinds = ["rows", "suites", "recipe-data", "arguments-light", "environment"]
    words = ["--inputs", "40", "--seed", "1", "--workers", "1", "--kept", tmp_path, "--place", tmp_path / "place"]
    command = [sys.executable, ROOT / "tools" / "fuzz.py", *words, "--kinds", *kinds]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "seed 1: 40 inputs, 0 failures" in run.stdout


def test_a_place_in_use_is_left_alone(tmp_path: Path) -> None:
    """A second program would remove the place under the first."""
    program = Path(__file__).parents[1] / "tools" / "fuzz.py"
    (tmp_path / "0" / "place").mkdir(parents=True)
    with FileLock(tmp_path / "0.lock"):
        words = ["--seed", "1", "--inputs", "1", "--light", "--workers", "1", "--place", str(tmp_path)]
        ended = subprocess.run([sys.executable, str(program), *words], capture_output=True, text=True)
    assert ended.returncode == 1 and "in use by another run of this program" in ended.stderr
    assert (tmp_path / "0" / "place").is_dir()
