"""Sentence pairs from a TSV; a broken file is refused in one line."""

import gzip

import pytest

from gemma4vec.data.suites.sts import load_sts
from gemma4vec.errors import InputError

HEADER = "split\tscore\tsentence1\tsentence2\n"
LINES = "".join(f"test\t{grade}\tone {grade}\tother {grade}\n" for grade in range(4)) + "".join(
    f"dev\t{grade}.5\tdev {grade}\tpair\n" for grade in range(5)
)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_the_test_split_is_the_default_and_others_can_be_requested(tmp_path):
    file = write(tmp_path / "stsb.tsv", HEADER + LINES)
    suite = load_sts(file)
    assert (suite.name, suite.kind, len(suite.ids)) == ("stsb", "sts", 4)
    assert (suite.ids[0], suite.first[1], suite.second[1], suite.gold) == ("test-2", "one 1", "other 1", [0, 1, 2, 3])
    dev = load_sts(file, "dev")
    assert (dev.name, len(dev.ids)) == ("stsb-dev", 5)
    assert dev.fingerprint != suite.fingerprint


def test_without_a_test_split_all_pairs_are_one_suite(tmp_path):
    file = write(tmp_path / "sts12.tsv", HEADER + LINES.replace("test\t", "MSRpar\t").replace("dev\t", "OnWN\t"))
    assert len(load_sts(file).ids) == 9


def test_quotes_are_texts_and_gzip_is_read(tmp_path):
    text = HEADER + LINES.replace("one 1", '"one" 1')
    with gzip.open(tmp_path / "a.tsv.gz", "wt", encoding="utf-8") as stream:
        stream.write(text)
    suite = load_sts(tmp_path / "a.tsv.gz")
    assert (suite.name, suite.first[1]) == ("a", '"one" 1')


def test_order_and_file_do_not_change_the_fingerprint(tmp_path):
    lines = LINES.splitlines(keepends=True)
    one = load_sts(write(tmp_path / "a.tsv", HEADER + "".join(lines)))
    other = load_sts(write(tmp_path / "b.tsv", HEADER + "".join(reversed(lines))))
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("text", "split", "reason"),
    [
        ("score\tsentence1\n", None, "line 1: the header must be split, score"),
        (HEADER + "test\t1\tonly one\n", None, "line 2: 3 cells"),
        (HEADER + LINES, "train", "no split 'train'; it has dev, test"),
        (HEADER + LINES.replace("test\t2", "test\ttwo"), None, "line 4: score 'two' is not a number"),
        (HEADER + LINES.replace("test\t2", "test\tnan"), None, "line 4: score 'nan'"),
        (HEADER + "test\t1\ta\tb\n" * 3, None, "3 pairs; at least 4"),
        (HEADER + "test\t1\ta\tb\n" * 5, None, "all 5 judgments are 1"),
    ],
)
def test_an_error_is_one_line(tmp_path, text, split, reason):
    with pytest.raises(InputError, match=reason):
        load_sts(write(tmp_path / "x.tsv", text), split)


def zipped(content: bytes) -> bytes:
    """Compressed without a time, so that every process gives the tests the same names."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (zipped((HEADER + LINES).encode())[:-20], r"x\.tsv\.gz: compressed stream damaged after line"),
        (zipped((HEADER + LINES).encode())[:30] + b"\0" * 99, r"x\.tsv\.gz: compressed stream damaged"),
        (b"no gzip", r"x\.tsv\.gz: compressed stream damaged after line 0"),
        (zipped((HEADER + LINES).encode("utf-16")), "line 1: not UTF-8 at byte 0 \\(is it UTF-16"),
        (zipped((HEADER + LINES).encode() + b"test\t1\t\xff\tx\n"), "line 11: not UTF-8 at byte 7"),
        (zipped(b""), "line 1: the header must be"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, content, reason):
    (tmp_path / "x.tsv.gz").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        load_sts(tmp_path / "x.tsv.gz")


def test_long_sentences_and_other_line_separators_are_text(tmp_path):
    text = HEADER + LINES.replace("one 1", "x" * 200_000).replace("other 1", "a\u2028b\x0cc")
    suite = load_sts(write(tmp_path / "x.tsv", text.replace("\n", "\r\n")))
    assert (len(suite.first[1]), suite.second[1]) == (200_000, "a\u2028b c")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_sts(tmp_path / "none.tsv")
