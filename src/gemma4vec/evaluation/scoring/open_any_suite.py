"""Open a suite of any kind by name: ours, or a task of mteb."""

from pathlib import Path

from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.data.suites.group import AnySuite
from gemma4vec.data.suites.kinds import Role
from gemma4vec.evaluation.scoring.mteb_suite import MtebSuite, open_mteb


def open_any_suite(spec: str, role: Role | None = None, mirror: Path | None = None) -> AnySuite | MtebSuite:
    """Open what a person types after --suite: `mteb:TASK`, or a name that `open_suite` takes.

    Arguments and errors are those of `open_suite` and `open_mteb`.
    """
    task = spec.removeprefix("mteb:")
    return open_suite(spec, role=role, mirror=mirror) if task == spec else open_mteb(task, role)
