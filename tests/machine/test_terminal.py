"""Log lines and progress: on a terminal, elsewhere, and where nobody asked for them."""

import io
import logging
import os
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from gemma4vec.machine import terminal
from gemma4vec.machine.terminal import ProgressBar, bars_by_stage, duration, fall_silent, prints_on_stderr, show_on

logger = logging.getLogger("gemma4vec.machine.test")


def shown(terminal_like: bool = False) -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=terminal_like)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock says, one call after the other."""
    left: list[float] = []
    monkeypatch.setattr("gemma4vec.machine.terminal.time.monotonic", lambda: left.pop(0))
    return left


@pytest.fixture
def restored() -> Iterator[None]:
    yield
    logging.getLogger("gemma4vec").setLevel(logging.NOTSET)


def test_a_rate_counts_only_what_was_done_now(times: list[float]) -> None:
    times += [100.0, 105.0, 110.0, 130.0]
    console = shown()
    with show_on(lambda: console), ProgressBar("search index", "functions") as bar:
        for done in (500, 550, 600, 800):
            bar(done, 1000)
    assert text(console).splitlines() == [
        "search index: 600 of 1,000 functions (60%), 10.0/s, 40 s left",
        "search index: 800 of 1,000 functions (80%), 10.0/s, 20 s left",
    ]


def test_the_last_state_stays_where_that_is_asked_for(times: list[float]) -> None:
    for final_line in (True, False):
        times += [0.0, 1.0]
        console = shown()
        with show_on(lambda console=console: console), ProgressBar("train", "steps", final_line=final_line) as bar:
            bar(1, None, "loss 2.0000")
            bar(2, 2, "loss 1.0000")
        assert text(console) == ("train: 2 of 2 steps (100%), loss 1.0000\n" if final_line else "")


def drawn(console: Console, words: str) -> None:
    """Wait until the display, which draws some times a second, has drawn these words."""
    for _ in range(3000):
        if words in text(console):
            return
        threading.Event().wait(0.1)
    raise AssertionError(f"{words} was never drawn")


def test_a_terminal_gets_a_bar_and_lines_of_threads_above_it_and_no_rest() -> None:
    console = shown(terminal_like=True)
    with show_on(lambda: console), bars_by_stage("words [x]") as report:
        report("documents", 10, 100)
        drawn(console, "10 of 100 documents (10%)")
        report("queries", 5, 10)
        drawn(console, "5 of 10 queries (50%)")
        speakers = [threading.Thread(target=logger.info, args=(f"line {number}",)) for number in range(20)]
        for one in speakers:
            one.start()
        for one in speakers:
            one.join()
        report("documents", 50, 100)
    lines = text(console)
    assert "words [x]" in lines and "10 of 100 documents (10%)" in lines and "5 of 10 queries (50%)" in lines
    assert all(f"line {number}\n" in lines for number in range(20))
    assert "\x1b[?25h" in lines  # the cursor is there again


def test_without_a_command_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("search index", "functions", final_line=True) as bar:
        bar(1, 1)
    assert bar.done == 1 and capfd.readouterr() == ("", "")


def test_lines_of_a_command_end_with_it_and_repeat_nothing() -> None:
    console = shown()
    with show_on(lambda: console):
        logger.info("inside 100%")
        logger.warning("warning: %s", "shown")
        logger.debug("left out")
    logger.info("outside")
    assert text(console).splitlines() == ["inside 100%", "warning: shown"]
    assert logging.getLogger("gemma4vec").propagate and not logging.getLogger("gemma4vec").handlers


def test_processes_behind_the_first_are_silent(restored: None) -> None:
    console = shown()
    with show_on(lambda: console):
        fall_silent()
        logger.error("error")
        with ProgressBar("train", "steps", final_line=True) as bar:
            bar(1, 1)
    assert text(console) == "" and terminal._display is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (59.6, "1 min 00 s")]
)
def test_durations_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_libraries_print_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with prints_on_stderr():
        os.write(1, b"from compiled code\n")
    os.write(1, b"the result\n")
    assert capfd.readouterr() == ("the result\n", "from compiled code\n")
