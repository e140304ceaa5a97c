"""Folders that are replaced whole: the old one or the new one, never neither, and no rubbish."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gemma4vec import files
from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import (
    DiskError,
    atomic_folder,
    atomic_write,
    check_writable,
    optional_file,
    refuse_overwriting,
    temporary_folder,
)


def dead() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


def fill(path: Path, text: str) -> None:
    with atomic_folder(path) as folder:
        (folder / "file").write_text(text)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced_and_nothing_else_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    for text in ("first", "second"):
        fill(tmp_path / "made", text)
        assert (tmp_path / "made" / "file").read_text() == text
        assert [entry.name for entry in tmp_path.iterdir()] == ["made"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    fill(tmp_path / "made", "old")
    expected = r"made: no space left on the disk; free space or choose another folder"
    with pytest.raises(WorkError, match=expected), atomic_folder(tmp_path / "made") as folder:
        (folder / "file").write_text("half")
        raise OSError(28, "No space left on device")
    assert (tmp_path / "made" / "file").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]


@pytest.mark.skipif(sys.platform != "linux", reason="two names are exchanged at once on Linux alone")
def test_there_is_no_moment_with_neither(tmp_path: Path) -> None:
    """The name stands for a whole folder while another process replaces it over and over."""
    fill(tmp_path / "made", "0" * 100)
    code = (
        "import sys; from pathlib import Path; from gemma4vec.files import atomic_folder\n"
        "for n in range(10**9):\n"
        "    with atomic_folder(Path(sys.argv[1])) as folder: (folder / 'file').write_text(str(n % 10) * 100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "made")]) as writer:
        seen = set()
        while len(seen) < 3:
            opened = os.open(tmp_path / "made", os.O_DIRECTORY)  # fails where the name stands for nothing
            try:
                with open("file", opener=lambda name, flags: os.open(name, flags, dir_fd=opened)) as stream:  # noqa: B023
                    text = stream.read()
            except FileNotFoundError:
                continue  # opened just before it was replaced, and removed since
            finally:
                os.close(opened)
            assert len(text) == 100 and len(set(text)) == 1
            seen.add(text)
        writer.send_signal(signal.SIGKILL)
    fill(tmp_path / "made", "after")
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]  # what the killed one left is gone


def test_another_process_at_work_is_left_alone(tmp_path: Path) -> None:
    working = tmp_path / f".made.{files.machine_name()}-{os.getppid()}.abc.part"
    elsewhere = tmp_path / f".made.{files.machine_name()}0-{dead()}.abc.part"
    for folder in (working, elsewhere):
        folder.mkdir()
    fill(tmp_path / "made", "new")
    assert working.exists() and elsewhere.exists()


@pytest.mark.parametrize("used", ["file", "folder"])
def test_what_dead_processes_left_in_a_folder_is_removed(tmp_path: Path, used: str) -> None:
    owner = f"{files.machine_name()}-{dead()}"
    (tmp_path / f".other.json.{owner}.abc.part").write_text("half")
    (tmp_path / f".store.{owner}.abc.part").mkdir()
    (tmp_path / f".store.{owner}.abc.part" / "half").write_text("half")
    # It died between two renames: its old folder has no name.
    (tmp_path / f".lost.{owner}.abc.old" / "lost").mkdir(parents=True)
    (tmp_path / f".lost.{owner}.abc.old" / "lost" / "file").write_text("old")
    if used == "file":
        with atomic_write(tmp_path / "made") as stream:
            stream.write("new")
    else:
        fill(tmp_path / "made", "new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lost", "made"]
    assert (tmp_path / "lost" / "file").read_text() == "old"


def test_temporary_folders_of_dead_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    (tmp_path / f".gemma4vec-bench.{files.machine_name()}-{dead()}.abc.part").mkdir()
    with temporary_folder("bench") as folder:
        (folder / "file").write_text("x")
        assert [entry.name for entry in tmp_path.iterdir()] == [folder.name]
    assert list(tmp_path.iterdir()) == []


def test_files_are_flushed_before_they_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace, fsync = os.replace, os.fsync

    def flushed(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def renamed(old: str | Path, new: str | Path) -> None:
        done.append("renamed")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    fill(tmp_path / "folder", "x")
    assert done[0] == "file" and done[1].endswith(".part") and done[2:] == ["renamed", tmp_path.name]
    done.clear()
    with atomic_write(tmp_path / "one") as stream:
        stream.write("x")
    assert done[0].startswith(".one.") and done[1:] == ["renamed", tmp_path.name]


def test_a_long_name_has_a_temporary_name(tmp_path: Path) -> None:
    with atomic_write(tmp_path / ("x" * 240)) as stream:
        stream.write("x")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (28, "no space left on the disk; free space or set GEMMA4VEC_CACHE"),
        (122, "the disk quota is used up; free space or set GEMMA4VEC_CACHE"),
        (30, "the folder is read-only .*; set GEMMA4VEC_CACHE to another folder"),
        (13, "the folder is read-only .*; set GEMMA4VEC_CACHE to another folder"),
    ],
)
def test_a_disk_fault_is_named_rightly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    monkeypatch.setenv("GEMMA4VEC_CACHE", str(tmp_path))
    with pytest.raises(DiskError, match=reason), files.disk_errors(tmp_path / "x"):
        raise OSError(number, os.strerror(number))


def test_a_folder_is_checked_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DiskError, match=r"TB|GB will be written and .* GB are free"):
        check_writable(tmp_path / "new", 10**18)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskError, match=r"could not write .*file"):
        check_writable(tmp_path / "file")
    if sys.platform == "linux":
        with pytest.raises(DiskError, match="could not write /proc/none"):
            check_writable(Path("/proc/none"))


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, log_lines: list[str]) -> None:
    (tmp_path / "file").write_text("x")
    for _ in range(2):
        with optional_file("vectors of m"):
            files.write_json(tmp_path / "file" / "note.json", {})
    assert len([line for line in log_lines if line.startswith("vectors of m not cached: could not write")]) == 1


def test_a_user_without_home_has_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GEMMA4VEC_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    files._temporary_cache.cache_clear()
    folder = files.cache()
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
    files._temporary_cache.cache_clear()
    folder.chmod(0o777)
    with pytest.raises(InputError, match="open to other users; set GEMMA4VEC_CACHE"):
        files.cache()
    files._temporary_cache.cache_clear()


def test_work_never_replaces_what_it_reads(tmp_path: Path) -> None:
    file, folder = tmp_path / "rows.jsonl", tmp_path / "rows"
    folder.mkdir()
    for one in (file, folder / "a.jsonl"):
        one.write_text("{}")
    (tmp_path / "link.jsonl").symlink_to(file)
    (tmp_path / "hard.jsonl").hardlink_to(file)
    for out in (file, tmp_path / "rows" / ".." / "rows.jsonl", tmp_path / "link.jsonl", tmp_path / "hard.jsonl"):
        with pytest.raises(InputError, match=r"jsonl is read by this command and would be replaced"):
            refuse_overwriting([tmp_path / "new.jsonl", out], [None, str(file)])
    with pytest.raises(InputError, match=r"a\.jsonl is read by this command"):
        refuse_overwriting([folder / "a.jsonl"], [folder])
    refuse_overwriting([tmp_path / "new.jsonl", folder / "new.jsonl"], [file, folder, "bundled:x"])


def test_a_killed_process_that_nobody_waited_for_is_dead() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    deadline = time.monotonic() + 30
    while files.is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, 0)  # its number is still taken
    assert not files.is_running(pid) and files.is_running(os.getpid())
    os.waitpid(pid, 0)
