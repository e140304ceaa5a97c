"""Compressed files are read up to limits on what they unpack to."""

import gzip
from pathlib import Path

import pyarrow
import pytest

from gemma4vec.data.rows.jsonl import raw_lines, read_lines
from gemma4vec.data.suites.sts import load_sts
from gemma4vec.errors import InputError
from gemma4vec.reading import compressed


def write(file: Path, raw: bytes) -> Path:
    if file.suffix == ".zst":
        file.write_bytes(pyarrow.compress(raw, codec="zstd", asbytes=True))
    else:
        file.write_bytes(gzip.compress(raw) if file.suffix == ".gz" else raw)
    return file


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_lines_are_those_that_were_written(name: str, tmp_path: Path) -> None:
    lines = [b'{"n": %d}\n' % number for number in range(20_000)]
    assert [raw for _, raw in raw_lines(write(tmp_path / name, b"".join(lines)))] == lines


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_file_that_unpacks_out_of_proportion_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / name, b'{"n": "%s"}\n' % (b"1" * 1_000) * 2_000)
    assert sum(1 for _ in read_lines(file)) == 2_000  # below what is always allowed
    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 1_000_000)
    with pytest.raises(InputError, match=f"{name}: unpacks to over .* more than 200 times its size"):
        list(read_lines(file))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_has_a_limit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "LONGEST_LINE", 1_000)
    file = write(tmp_path / name, b"{}\n" + b"x" * 2_000)
    with pytest.raises(InputError, match=f"{name} line 2: longer than"):
        list(read_lines(file))


def test_sentence_pairs_have_the_limit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 1_000)
    file = write(tmp_path / "s.tsv.gz", b"split\tscore\tsentence1\tsentence2\n" + b"test\t1\ta\tb\n" * 100_000)
    with pytest.raises(InputError, match="unpacks to over"):
        load_sts(file)
