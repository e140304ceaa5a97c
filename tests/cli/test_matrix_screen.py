"""What a running matrix logs where there is no terminal: each new state of a cell, and its progress now and then."""

from collections.abc import Iterator

import pytest

from gemma4vec.cli.matrix import screen
from gemma4vec.cli.matrix.screen import SECONDS_BETWEEN_LINES, Screen
from gemma4vec.pipeline.matrix.run import CellStatus
from gemma4vec.pipeline.matrix.state import Cell


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [0.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    yield now


def test_lines_are_logged_when_something_is_new(clock: list[float], log_lines: list[str]) -> None:
    cell, other = Cell("mean", 1e-4, 0), Cell("last", None, 1)
    with Screen() as shown:
        shown.show([CellStatus(cell, "running"), CellStatus(other, "waiting")])
        assert log_lines == ["mean, rate 0.0001, seed 0: running"]  # waiting is where every cell begins
        running = CellStatus(cell, "running", step=7, loss=1.25, tokens_per_second=1234.5, minutes=0.5)
        shown.show([running])
        assert len(log_lines) == 1  # the same state, and a line was just written
        clock[0] = SECONDS_BETWEEN_LINES
        shown.show([running])
        assert log_lines[1].endswith("running  step 7  loss 1.250  tokens/s 1,234  minutes 0.5")
        shown.show([CellStatus(cell, "stopped", why="below the control"), CellStatus(other, "finished", dev=0.5)])
    assert log_lines[2] == "mean, rate 0.0001, seed 0: stopped (below the control)"
    assert log_lines[3] == "last, seed 1: finished  dev 0.5000"


def test_a_table_hides_the_first_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [CellStatus(Cell("mean", None, seed), "waiting") for seed in range(60)]
    monkeypatch.setattr(type(screen.console), "height", property(lambda self: 200))
    table = screen._make_table(many)
    assert table.row_count == screen.MOST_ROWS and table.title == "20 earlier cells not shown"
    assert screen._make_table(many[:3]).title is None
