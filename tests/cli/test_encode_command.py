"""`encode` as people type it: exit codes, one line, JSON."""

import json
import os
import signal
from pathlib import Path

import pytest
from encoded_folders import corpus, sums, write_corpus
from stub_encoder import StubOpener

from gemma4vec.cli.main import execute
from gemma4vec.serving.encode import bulk_embedder, work


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "c.jsonl", corpus(20))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_embedder, "ModelOpener", lambda run: StubOpener(run.ljust(16, "f")))


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = execute(["encode", *map(str, words)])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_an_encoding_says_what_it_did(
    stub: None, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, said, _ = run(capsys, "r", source, out, "--shard-rows", 8, "--shard", "1/2")
    assert code == 0 and "2 of 3 shards are done; 12 rows encoded now as document texts" in said
    code, said, _ = run(capsys, "r", source, out, "--shard-rows", 8, "--json")
    value = json.loads(said)
    assert code == 0 and (value["shards_done"], value["shards_encoded"], value["encoded"]) == (3, 1, 8)
    code, said, _ = run(capsys, "r", source, out, "--check")
    assert code == 0 and "20 vectors in 3 shards are whole and of length one; 0 rows rejected" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_an_encoding_that_a_signal_stops_is_exit_75_and_goes_on(
    number: signal.Signals,
    stub: None,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    encode_shard = work.encode_shard

    def stopped_at_the_second(plan: object, files: object, embedder: object, shard: int, report: object) -> object:
        if shard == 1:
            os.kill(os.getpid(), number)
        return encode_shard(plan, files, embedder, shard, report)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(work, "encode_shard", stopped_at_the_second)
        code, said, err = run(capsys, "r", source, tmp_path / "out", "--shard-rows", 8)
    assert (code, said) == (75, "") and f"interrupted: stopped by {number.name}; go on with: the same command" in err
    assert not list((tmp_path / "out" / "leases").glob("*.lease"))
    assert run(capsys, "r", source, tmp_path / "out", "--shard-rows", 8)[0] == 0
    assert run(capsys, "r", source, tmp_path / "whole", "--shard-rows", 8)[0] == 0
    assert sums(tmp_path / "out") == sums(tmp_path / "whole")


def test_a_check_that_fails_is_exit_1(
    stub: None, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(capsys, "r", source, out, "--shard-rows", 8)
    (out / "vectors" / "000001.parquet").write_bytes(b"x")
    code, said, err = run(capsys, "r", source, out, "--check")
    assert code == 1 and said == "" and err.count("\n") == 1 and "shard 1: " in err
    code, said, _ = run(capsys, "r", source, out, "--check", "--json")
    value = json.loads(said)
    assert code == 1 and not value["good"] and value["damaged"][0]["shard"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shard", "4/3"), "--shard 4/3: write I/N"),
        (("--shard", "1/3", "--workers", "2"), "--shard and --workers exclude each other"),
        (("--row-ids", "--id-field", "x"), "--row-ids and --id-field exclude each other"),
        (("--format", "csv"), "--format csv: use"),
        (("--input-type", "text"), "--input-type text: use"),
        (("--dimension", "5"), "--dimension 5: stub was not trained for it"),
        (("--text-field", "body"), "field 'body' is missing"),
        (("--shard-rows", "0"), "--shard-rows"),
        (("--check",), "has no plan of a bulk encoding"),
    ],
)
def test_bad_input_is_exit_2_and_one_line(
    stub: None, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    code, out, err = run(capsys, "r", source, tmp_path / "out", *words)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1
    assert sums(tmp_path / "out") == {}


def test_a_run_that_is_not_finished_is_exit_2(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished = tmp_path / "runs" / "r"
    unfinished.mkdir(parents=True)
    (unfinished / "manifest.json").write_text('{"run_id": "r", "status": "started"}')
    code, _, err = run(capsys, unfinished, source, tmp_path / "out")
    assert code == 2 and "has no finished model yet" in err and not (tmp_path / "out").exists()
    code, _, err = run(capsys, tmp_path / "nowhere", source, tmp_path / "out")
    assert code == 2 and err.count("\n") == 1
