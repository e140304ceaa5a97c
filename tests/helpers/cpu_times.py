"""CPU seconds of each test, its child processes included: `pytest -p cpu_times`, sums by file at the end.

Unlike `--durations` they hardly depend on what else runs on the machine. Children count when they were waited for.
"""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import forked
import pytest

SHOWN = 60


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4]) + forked.cpu_seconds


class CpuTimes:
    """Collects the seconds of tests, in workers of pytest-xdist too."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Set-up, call and teardown of one test; fixtures of a module count for the test that needed them first."""
        began = cpu_seconds()
        yield
        item.config.stash[KEY][item.nodeid] = cpu_seconds() - began

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker passes on what it found."""
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["cpu_times"] = dict(session.config.stash[KEY])

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """The process that distributes the tests adds up what a worker passed on."""
        self.seconds.update(getattr(node, "workeroutput", {}).get("cpu_times", {}))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Files first, then tests, the dearest on top."""
        self.seconds.update(terminalreporter.config.stash[KEY])
        files: Counter[str] = Counter()
        for name, seconds in self.seconds.items():
            files[name.split("::")[0]] += seconds
        for title, found in (("files", files), ("tests", self.seconds)):
            terminalreporter.write_sep("=", f"CPU seconds of {title}, {sum(found.values()):.0f} in all")
            for name, seconds in found.most_common(SHOWN):
                terminalreporter.write_line(f"{seconds:8.1f}  {name}")


KEY = pytest.StashKey[dict[str, float]]()


def pytest_configure(config: pytest.Config) -> None:
    """Registers the collector once."""
    config.stash[KEY] = {}
    config.pluginmanager.register(CpuTimes(), "cpu-times")
