"""`gemma4vec soup`: what it prints, as a table and as JSON, and its refusals."""

import json
from pathlib import Path

import pytest
from small_suite import write_small_suite
from tiny_family import make_base, make_run

from gemma4vec.cli.main import execute


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    base = make_base(folder)
    return [make_run(folder, base, seed).path for seed in (1, 2)]


def test_json_and_table_have_the_same_figures(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(run) for run in runs]
    dev = str(write_small_suite(tmp_path, "words", "dev"))
    options = ["--method", "greedy", "--dev", dev, "--control"]
    assert execute(["soup", *names, "--out", str(tmp_path / "one"), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["run_id"] for one in found["ingredients"]] == [run.name for run in runs]
    assert found["folder"] == str(tmp_path / "one") and found["control"]["folder"] == str(tmp_path / "one-control")
    assert execute(["soup", *names, "--out", str(tmp_path / "two"), *options]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"The soup's change from base has {found['shrinkage']:.3f} of the mean norm" in shown
    assert f"{found['ingredients'][1]['norm']:.4f}" in shown and f"{found['dev']['words']:.4f}" in shown
    assert "3 looks at words chose this soup" in shown and "its control" in shown
    assert "before a final suite: gemma4vec runs freeze" in shown
    assert execute(["runs"]) == 0 and "soup-greedy" in capsys.readouterr().out
    run = shown.split("run: ")[1].split()[0]
    assert execute(["runs", "show", run]) == 0 and "builds on" in capsys.readouterr().out
    assert execute(["runs", "freeze", run]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "greedy"], "--method greedy chooses by scores; name a dev suite: --dev SUITE"),
        (["--method", "weights", "--weights", "0.5,half"], "--weights: 'half' is no number"),
        (["--parameter", "t"], "--parameter t: write KEY=NUMBER, such as t=0.5"),
        (["--weights", "0.5,0.5"], "belong together"),
    ],
)
def test_bad_options_are_one_line(
    runs: list[Path], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["soup", *map(str, runs), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
