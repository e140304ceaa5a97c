"""Every kind of file gives its sections, and every kind of bad file is counted while the rest goes on."""

import os
from pathlib import Path

import pytest
from small_documents import make_pdf, write_every_kind

from gemma4vec.data.documents.folder_files import LARGEST, LeftOut, find_document_files
from gemma4vec.data.documents.read_sections import read_sections
from gemma4vec.data.documents.section import Section, cut_long, sentences
from gemma4vec.errors import InputError


def read(root: Path) -> tuple[dict[str, Section], LeftOut]:
    left_out = LeftOut()
    sections = read_sections(root, find_document_files(root, left_out), left_out)
    found = {section.id: section for section in sections}
    assert len(found) == len(sections)
    return found, left_out


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Section]:
    found, left_out = read(write_every_kind(tmp_path_factory.mktemp("every") / "docs"))
    assert left_out.reasons == {}
    return found


@pytest.mark.parametrize(
    ("key", "headings", "line", "words"),
    [
        (
            "README.md#using",
            ("Frobnicator", "Usage"),
            8,
            "Run frob --all in a folder. It prints one line for each file",
        ),
        ("guide/proxy.md#set-up-a-proxy", ("Proxies", "Set up a proxy"), 3, "key | meaning\na | first"),
        (
            "guide/index.rst#errors",
            ("Guide", "Errors"),
            12,
            "the whole guide has a table of codes, and run raises FrobError.",
        ),
        ("guide/index.rst#errors", ("Guide", "Errors"), 12, "Codes stay the same between releases."),
        ("page.html#release-notes", ("Release notes",), None, "All changes are listed here, with dates."),
        ("page.html#v2", ("Release notes", "Version two"), None, "- Faster frobbing of large files.\n"),
        ("page.html#v2", ("Release notes", "Version two"), None, "code   here\n two"),
        ("notes.txt#meeting-notes", ("Meeting notes",), 1, "We met on Monday"),
        ("notes.txt#decisions", ("Meeting notes", "Decisions"), 5, "The frob stays as it is until spring."),
        ("tutorial.ipynb#tutorial", ("Tutorial",), None, "then plot it.\n\nplot(data)"),
        ("paper.pdf#page=2", (), None, "They are rare today."),
        ("code/add.py#add", (), 1, "    b = a + 1\n"),
        ("code/send.js#L4", ("code/send.js",), 5, "function send(form) {"),
    ],
)
def test_every_kind_has_its_sections(
    every_kind: dict[str, Section], key: str, headings: tuple[str, ...], line: int | None, words: str
) -> None:
    section = every_kind[key]
    assert section.headings == headings and section.line == line
    assert words in section.text


def test_what_is_no_text_is_not_read(every_kind: dict[str, Section]) -> None:
    everything = " ".join(section.text for section in every_kind.values())
    assert not any(word in everything for word in ("menu", "var x", "hidden", "root:", "¶", "toctree"))


def test_descriptions_of_code_are_taken_out_of_it(every_kind: dict[str, Section]) -> None:
    assert every_kind["code/add.py#add"].query == "Add one to a number and log it."
    assert every_kind["code/send.js#L4"].query == "Sends the form to the server and shows the answer."
    assert "Sends the form" not in every_kind["code/send.js#L4"].text


def test_bad_files_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "docs"
    (root / "sub").mkdir(parents=True)
    (root / "good.md").write_text("# Good\n\nThis one can be read.\n")
    (root / "binary.md").write_bytes(b"\x00\x01\x02\x03")
    (root / "noise.txt").write_bytes(bytes(range(1, 8)) * 100)
    (root / "scan.pdf").write_bytes(make_pdf(["", ""]))
    (root / "cut.pdf").write_bytes(make_pdf(["text"])[:100])
    (root / "cut.ipynb").write_text('{"cells": [')
    (root / "other.ipynb").write_text("[1]")
    (root / "empty.md").write_bytes(b"")
    (root / "blank.md").write_text("\n\n  \n")
    (root / "picture.png").write_bytes(b"x")
    with (root / "huge.txt").open("wb") as stream:
        stream.truncate(LARGEST + 1)
    (root / "loop").symlink_to(root)
    (root / "again.md").symlink_to(root / "good.md")
    (root / "out").symlink_to(tmp_path)
    (root / "self.md").symlink_to(root / "self.md")
    os.mkfifo(root / "pipe.txt")
    found, left_out = read(root)
    assert list(found) == ["good.md#good"]
    assert left_out.counts() == {
        "PDF without text, as of a scanner": 1,
        "bytes that are not text": 2,
        "damaged, or not a PDF that can be opened": 1,
        "damaged, or not a notebook": 2,
        "empty": 1,
        "larger than 32 MiB": 1,
        "link that leads nowhere": 1,
        "link that leads out of the folder": 1,
        "link to what is read already": 2,
        "no words": 1,
        "not a file": 1,
        "of a kind that is not read": 1,
    }
    assert "2 left out: bytes that are not text (binary.md, ...)" in left_out.lines()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_counted(tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("# Good\n\nThis one can be read.\n")
    (tmp_path / "secret.md").write_text("# Secret\n\nThis one cannot.\n")
    (tmp_path / "secret.md").chmod(0)
    assert list(read(tmp_path)[0]) == ["good.md#good"]
    assert read(tmp_path)[1].counts() == {"cannot be read (permission denied)": 1}


def test_a_pdf_that_takes_too_long_is_counted_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gemma4vec.data.documents import read_sections as module

    (tmp_path / "readers").mkdir()
    (tmp_path / "readers" / "looping_reader.py").write_text(
        "from gemma4vec.data.documents.section import Section\n"
        "def read(raw, path):\n    while path == 'b.pdf':\n        pass\n"
        "    return [Section(f'{path}#page=1', path, (), 'words')._asdict()]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "readers"))
    monkeypatch.setattr(module, "PDF_READER", "looping_reader:read")
    monkeypatch.setattr(module, "PDF_LIMITS", (0.2, 3_000.0))
    (tmp_path / "docs").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "docs" / f"{name}.pdf").write_bytes(b"x")
    found, left_out = read(tmp_path / "docs")
    assert list(found) == ["a.pdf#page=1", "c.pdf#page=1"]
    assert left_out.lines() == ["1 left out: took over 0.2 s (b.pdf)"]


def test_a_reader_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pypdf" else real(name))
    (tmp_path / "a.pdf").write_bytes(make_pdf(["text"]))
    assert read(tmp_path)[1].lines() == [
        "1 left out: pypdf is not installed: pip install 'gemma4vec[documents]' (a.pdf)"
    ]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_document_files(tmp_path / "none", LeftOut())


def test_the_order_and_ids_do_not_depend_on_the_disk(tmp_path: Path) -> None:
    for name in ("b.md", "a.md", "B.md"):
        (tmp_path / name).write_text("# Same\n\nSome words here.\n\n# Same\n\nOther words here.\n")
    assert list(read(tmp_path)[0]) == [f"{name}#same{end}" for name in ("B.md", "a.md", "b.md") for end in ("", "-1")]


def test_other_encodings_and_line_ends(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Größe\r\n\r\nDas Maß ist voll.\r\n".encode("cp1252"))
    (tmp_path / "wide.txt").write_text("Größe\n\nDas Maß ist voll.\n", encoding="utf-16")
    found, _ = read(tmp_path)
    assert {(section.headings, section.text) for section in found.values()} == {(("Größe",), "Das Maß ist voll.")}


def test_deep_pages_are_read(tmp_path: Path) -> None:
    (tmp_path / "deep.html").write_text("<div>" * 3000 + "<h2>Deep</h2>words at the bottom" + "</div>" * 3000)
    assert next(iter(read(tmp_path)[0].values())).text == "words at the bottom"


def test_long_sections_are_cut_where_paragraphs_end() -> None:
    text = "\n\n".join(f"Paragraph {number} has some words. It ends here." for number in range(60))
    whole = Section("a#b", "a", ("A", "B"), text, 3, anchors=("b",), query="q")
    parts = cut_long(whole, 500)
    assert [part.id for part in parts][:3] == ["a#b", "a#b~2", "a#b~3"] and {part.unit for part in parts} == {"a#b"}
    assert "\n\n".join(part.text for part in parts) == text
    assert all(len(part.text) <= 500 for part in parts) and min(len(part.text) for part in parts) > 200
    assert [part.query for part in parts][:2] == ["q", None] and [part.anchors for part in parts][:2] == [("b",), ()]


@pytest.mark.parametrize("text", ["x" * 3000, "word " * 700, "no end " * 300 + "\n" + "y" * 100])
def test_text_without_ends_is_cut_and_nothing_is_lost(text: str) -> None:
    parts = cut_long(Section("a", "a", (), text), 400)
    assert all(len(part.text) <= 400 for part in parts)
    assert "".join(part.text for part in parts).replace(" ", "").replace("\n", "") == text.replace(" ", "").replace(
        "\n", ""
    )


def test_sentences_end_where_people_end_them() -> None:
    text = "See Fig. 2, e.g. by Dr. Smith. It ends here! Does it?\n- an item\nlast line"
    assert [text[start:end] for start, end in sentences(text)] == [
        "See Fig. 2, e.g. by Dr. Smith.",
        "It ends here!",
        "Does it?",
        "- an item",
        "last line",
    ]
