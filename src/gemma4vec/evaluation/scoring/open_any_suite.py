"""Open a suite of any kind from its name: ours, or a task of mteb."""

from collections.abc import Callable
from pathlib import Path

from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.data.suites.group import AnySuite
from gemma4vec.data.suites.kinds import Role
from gemma4vec.evaluation.scoring.mteb_suite import MtebSuite, open_mteb


def open_any_suite(
    spec: str, role: Role | None = None, mirror: Path | None = None, notice: Callable[[str], None] = lambda line: None
) -> AnySuite | MtebSuite:
    """What a person types after --suite: `mteb:TASK`, or what `open_suite` knows; arguments and errors as there."""
    task = spec.removeprefix("mteb:")
    return open_suite(spec, role=role, mirror=mirror, notice=notice) if task == spec else open_mteb(task, role)
