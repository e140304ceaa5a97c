"""`gemma4vec launch`: prints, writes, submits; each mistake is one line and exit code 2."""

import json
from pathlib import Path

import pytest

from gemma4vec.cli.main import execute

RECIPE = "gemma4vec/echo_delta_causal"


def test_it_prints_json_or_text_and_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["launch", "local", RECIPE, "seed=2", "--nproc-per-node", "2"]) == 0
    text = capsys.readouterr().out
    assert f"--standalone --nproc-per-node 2 --max-restarts 3 -m gemma4vec train {RECIPE} seed=2" in text
    assert execute(["launch", "slurm", RECIPE, "--nodes", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["where"] == "slurm" and shown["text"].startswith("#!/bin/bash\n") and shown["submitted"] is None
    file = tmp_path / "job.sbatch"
    assert execute(["launch", "slurm", RECIPE, "--nodes", "2", "--output", str(file)]) == 0
    assert file.read_text() == shown["text"] and str(file) in capsys.readouterr().out.replace("\n", "")


def test_options_of_encode_follow_two_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["launch", "ssh", "encode", "r", "i", "o", "--hosts", "a,b", "--", "--format", "npy"]) == 0
    assert "gemma4vec encode r i o --format npy --shard 2/2" in capsys.readouterr().out


def test_it_submits_to_a_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "sbatch"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/got\necho Submitted batch job 7\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert execute(["launch", "slurm", RECIPE, "--submit"]) == 0
    assert capsys.readouterr().out == "Submitted batch job 7\n"
    assert (tmp_path / "got").read_text().startswith("#!/bin/bash\n#SBATCH")
    program.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    assert execute(["launch", "slurm", RECIPE, "--submit"]) == 1
    assert "sbatch refused the job (exit code 1): sbatch: error: invalid partition" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["local", "nope"], "no recipe 'nope'"),
        (["ssh", RECIPE], "no hosts"),
        (["ssh", RECIPE, "--hosts", "a,-b"], "the host '-b'"),
        (["ssh", RECIPE, "--hosts", "a", "--submit"], "the program ssh is not on this machine"),
        (["slurm", RECIPE, "--submit"], "the program sbatch is not on this machine"),
        (["slurm", RECIPE, "--partition", "a b"], "--partition='a b'"),
        (["skypilot", RECIPE, "--out", "/runs", "--submit"], "the program sky is not on this machine"),
        (["skypilot", RECIPE], "--out is missing"),
        (["local", RECIPE, "--submit", "--json"], "leave --json out"),
        (["local", RECIPE, "--nproc-per-node", "0"], "nproc-per-node"),
        (["slurm", "encode", "r", "i"], "needs RUN INPUT OUT"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert execute(["launch", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
