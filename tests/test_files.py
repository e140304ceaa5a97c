"""Folders that are replaced whole: the old one or the new one, never neither, and no rubbish."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gemma4vec import files
from gemma4vec.errors import WorkError
from gemma4vec.files import atomic_folder


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
    with pytest.raises(WorkError, match="No space left"), atomic_folder(tmp_path / "made") as folder:
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
    working = tmp_path / f".made.{files.socket.gethostname()}-{os.getppid()}.abc.part"
    elsewhere = tmp_path / ".made.another-machine-1.abc.part"
    for folder in (working, elsewhere):
        folder.mkdir()
    fill(tmp_path / "made", "new")
    assert working.exists() and elsewhere.exists()
