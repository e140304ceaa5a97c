"""`gemma4vec data documents` on bad input, as typed: every reason is one line, and the rest goes on."""

import json
import os
from pathlib import Path

import pytest
from small_documents import make_pdf, write_animals

from gemma4vec.cli.main import execute


def add_bad_files(folder: Path) -> None:
    """One file for each reason to leave one out."""
    (folder / "scan.pdf").write_bytes(make_pdf(["", ""]))
    (folder / "binary.md").write_bytes(bytes(range(256)) * 40)
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    (folder / "loop").symlink_to(folder)
    (folder / "self.md").symlink_to(folder / "self.md")
    (folder / "one").symlink_to(folder / "two")
    (folder / "two").symlink_to(folder / "one")
    (folder / "secret.md").write_text("# Secret\n\nNobody may read this one.\n")
    with (folder / "huge.txt").open("wb") as stream:
        stream.truncate(100 * 2**20)


def test_bad_files_are_one_line_each_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_animals(tmp_path / "docs", files=6)
    add_bad_files(folder)
    real = Path.read_bytes

    def unreadable(self: Path) -> bytes:  # root reads every file, whatever its permissions
        if self.name == "secret.md":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", unreadable)
    assert execute(["data", "documents", str(folder), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["left_out"] == {
        "PDF without text, as of a scanner": 1,
        "bytes that are not text": 1,
        "cannot be read (permission denied)": 1,
        "larger than 32 MiB": 1,
        "link that leads nowhere": 3,
        "link to what is read already": 1,
        "of a kind that is not read": 1,
    }
    lines = [line for line in captured.err.splitlines() if "left out" in line]
    assert len(lines) == 7 and "warning: 3 left out: link that leads nowhere (one, ...)" in lines


@pytest.mark.parametrize(
    ("files", "queries", "expected"),
    [
        ({}, None, "no document that can be read (it is empty)"),
        ({"a.png": b"x", "b.bin": b"y"}, None, "no document that can be read (2 left out: of a kind that is not read"),
        ({"scan.pdf": make_pdf([""])}, None, "no document has text that can be read: 1 left out: PDF without text"),
        ({"a.md": b"# Words\n\nSome words that can be read.\n"}, "how\tb.md\n", "no query has an answer in the folder"),
        ({"a.md": b"# Words\n\nSome words that can be read.\n"}, "\0\1\2\3", "not a text file"),
    ],
)
def test_what_gives_nothing_is_refused_in_one_line(
    files: dict[str, bytes], queries: str | None, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    for name, raw in files.items():
        (tmp_path / "docs" / name).write_bytes(raw)
    command = ["data", "documents", str(tmp_path / "docs")]
    if queries is not None:
        (tmp_path / "q.tsv").write_text(queries)
        command += ["--queries", str(tmp_path / "q.tsv")]
    assert execute(command) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert captured.out == "" and len(errors) == 1 and expected in errors[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root lists every folder")
def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir(mode=0)
    assert execute(["data", "documents", str(tmp_path / "docs")]) == 2
    assert "cannot be listed (permission denied)" in capsys.readouterr().err
