"""A reader in a process of its own: its values, its failures, its limits, and that none outlives its work."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemma4vec.machine.processes import timed_reader
from gemma4vec.machine.processes.timed_reader import NOT_STARTED, ReaderError, TimedReader, TookTooLongError

READER = """
import os, sys, time

def read(raw, path):
    print("a reader that talks")
    if path == "sleeps":
        time.sleep(600)
    while path == "loops":
        pass
    if path == "dies":
        os._exit(3)
    if path == "fails":
        raise KeyError("\\ud800 no such page")
    return [path, len(raw), os.getpid()]
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimedReader]:
    folder = tmp_path_factory.mktemp("reader")
    (folder / "fake_reader.py").write_text(READER, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        with TimedReader("fake_reader:read", seconds=0.2, patience=3_000.0) as found:
            yield found


def is_there(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_one_process_reads_file_after_file(reader: TimedReader) -> None:
    one = reader.read(b"x" * 200_000, "a\udcff.pdf")
    other = reader.read(b"", "b.pdf")
    assert one[:2] == ["a\udcff.pdf", 200_000] and other[:2] == ["b.pdf", 0] and one[2] == other[2]


def test_what_the_reader_raises_has_a_name_and_the_process_goes_on(reader: TimedReader) -> None:
    process = reader.read(b"", "a")[2]
    with pytest.raises(ReaderError, match="no such page") as caught:
        reader.read(b"", "fails")
    assert caught.value.kind == "KeyError" and reader.read(b"", "a")[2] == process


@pytest.mark.parametrize(("path", "patience"), [("loops", 3_000.0), ("sleeps", 1.0)])
def test_a_file_that_takes_too_long_ends_the_process_and_another_one_goes_on(
    reader: TimedReader, path: str, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = reader.read(b"", "a")[2]
    monkeypatch.setattr(reader, "patience", patience)
    with pytest.raises(TookTooLongError):
        reader.read(b"x", path)
    assert not is_there(process)
    monkeypatch.undo()
    assert reader.read(b"", "a")[2] != process


def test_a_process_that_dies_is_an_error_and_another_one_goes_on(reader: TimedReader) -> None:
    with pytest.raises(ReaderError, match="died: exit code 3"):
        reader.read(b"", "dies")
    assert reader.read(b"", "a")[0] == "a"


def test_ctrl_c_ends_the_process(reader: TimedReader, monkeypatch: pytest.MonkeyPatch) -> None:
    process = reader.read(b"", "a")[2]

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(timed_reader, "_line", interrupted)
        reader.read(b"", "sleeps")
    assert not is_there(process)


def test_the_end_of_the_work_ends_the_process(reader: TimedReader) -> None:
    process = reader.read(b"", "a")[2]
    reader.close()
    assert not is_there(process)


def test_a_process_that_does_not_start_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with TimedReader("no_such_module:read", seconds=1.0, patience=1.0) as found:
        for _ in range(2):
            with pytest.raises(ReaderError) as caught:
                found.read(b"", "a")
            assert caught.value.kind == NOT_STARTED
            monkeypatch.setattr(found, "_start", None)
