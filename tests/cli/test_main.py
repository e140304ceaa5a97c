"""Every failure is one line and the right exit code; the list of commands is true."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from gemma4vec import __version__
from gemma4vec.cli import main
from gemma4vec.cli.lazy import lazy_group, load
from gemma4vec.cli.main import COMMANDS, execute
from gemma4vec.errors import InputError, WorkError

SOURCE = Path(__file__).resolve().parents[2] / "src"


def failing(error: BaseException) -> Any:
    """A stand-in for a command that fails so."""

    def command() -> None:
        """Fail."""
        raise error

    return command


def run_failing(error: BaseException, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(
        "gemma4vec.cli.lazy.import_module", lambda _: type("module", (), {"doctor_command": failing(error)})
    )
    return execute(["doctor", *words])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("no such\nfile: x"), 2, "error: no such file: x"),
        (WorkError("loss is nan"), 1, "error: loss is nan"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            1,
            "error: no space left on the disk while writing /x/y",
        ),
        (KeyboardInterrupt(), 130, "interrupted: stopped by Ctrl-C; finished work is saved"),
        (KeyboardInterrupt("go on with --resume latest"), 130, "interrupted: go on with --resume latest"),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300),
            1,
            f"error: {'x' * 197}...: File name too long; check",
        ),
        (
            OSError(errno.ELOOP, "Too many symbolic links", "a\nb"),
            1,
            "error: a b: Too many symbolic links; check the path",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 1, "error: unexpected FileNotFoundError"),
        (MemoryError(), 1, "error: out of memory"),
        (ValueError("odd\n  thing"), 1, "error: unexpected ValueError: odd thing (run again with --traceback"),
        (RecursionError(), 1, "error: unexpected RecursionError"),
    ],
)
def test_a_failure_is_one_line(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_failing(error, monkeypatch) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(line)
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("error", [InputError("wrong"), ValueError("wrong")])
def test_traceback_shows_where(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_failing(error, monkeypatch, "--traceback")
    assert code == (2 if isinstance(error, InputError) else 1)
    assert "Traceback" in capsys.readouterr().err


def test_an_exit_code_of_a_command_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_failing(typer.Exit(3), monkeypatch) == 3
    assert run_failing(SystemExit(4), monkeypatch) == 4
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["zzz"], "No such command 'zzz'."),
        (["doctor", "--jsn"], "No such option: --jsn"),
        (["doctor", "extra"], "unexpected extra argument"),
        (["--nothing"], "No such option: --nothing"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(words) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and said in output.err and "--help)" in output.err
    assert output.err.count("\n") == 1


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_listed_command_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load(COMMANDS[name][0], name).name == name
    assert execute([name, "--help"]) == 0
    assert f"gemma4vec {name}" in capsys.readouterr().out


def test_words_behind_two_dashes_are_the_commands_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def search_command(words: Annotated[list[str], typer.Argument()]) -> None:
        seen.append(words)

    monkeypatch.setattr(
        "gemma4vec.cli.lazy.import_module", lambda _: type("module", (), {"search_command": search_command})
    )
    assert execute(["search", "--traceback", "--", "what does", "--traceback"]) == 0
    assert seen == [["what does", "--traceback"]]


def test_a_group_of_subcommands_is_loaded_when_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = typer.Typer()

    @inner.command("make")
    def make() -> None:
        print("made")

    monkeypatch.setattr("gemma4vec.cli.lazy.import_module", lambda _: type("module", (), {"app": inner}))
    outer = typer.Typer(cls=lazy_group({"things": ("some.module:app", "Things.")}), add_completion=False)
    outer.callback()(lambda: None)
    monkeypatch.setattr(main, "app", outer)
    assert execute(["things", "make"]) == 0
    assert capsys.readouterr().out == "made\n"
    assert execute(["things", "mak"]) == 2


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As in `gemma4vec ... | head -1`."""
    program = (
        "import sys; from gemma4vec.cli import lazy, main;"
        "talk = lambda: [print('x' * 1000) for _ in range(1000)];"
        "lazy.import_module = lambda _: type('m', (), {'doctor_command': talk});"
        "main.run(['doctor'])"
    )
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, cwd=SOURCE)
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    _, errors = process.communicate(timeout=600)
    assert errors == b""
    assert process.returncode == 1


def test_the_script_exits_with_the_code() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gemma4vec", "nothing"], capture_output=True, text=True, check=False, cwd=SOURCE
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: No such command 'nothing'")


@pytest.mark.parametrize(
    ("columns", "kept"), [("80", True), ("²", False), ("9" * 5000, False), ("", False), ("-1", False)]
)
def test_a_terminal_of_no_size_is_no_obstacle(columns: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert execute(["--version"]) == 0
    assert ("COLUMNS" in os.environ) == kept


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_what_a_terminal_cannot_show_is_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tables, error lines and paths that are not UTF-8, on both streams."""
    streams = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, raw in streams.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding=encoding))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "schön \\ud83d\\ude00", "pos": ["漢字"]}\n', encoding="utf-8")
    assert execute(["data", "read", "--source", "jsonl", "--path", str(rows), "--set", "name=ß"]) == 0
    assert execute(["data", "read", "--source", "jsonl", "--path", "none-\udcff-é.jsonl"]) == 2
    for name in streams:
        getattr(sys, name).flush()
    assert ("ß" if encoding == "utf-8" else "\\xdf") in streams["stdout"].getvalue().decode(encoding)
    errors = streams["stderr"].getvalue().decode(encoding)
    assert errors.splitlines()[-1].startswith("error: none-\\udcff-")


def test_a_loop_of_links_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "rows.parquet"
    link.symlink_to(link)
    assert execute(["data", "read", "--source", "parquet", "--path", str(link)]) in (1, 2)
    assert "unexpected" not in (line := capsys.readouterr().err) and "rows.parquet" in line
