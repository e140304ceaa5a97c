"""Open a suite of any kind by name, ours or a task of mteb; the words by which it opens again later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma4vec.data.loading.open_suite import absolute_spec, open_suite
from gemma4vec.data.suites.group import AnySuite
from gemma4vec.data.suites.kinds import Role
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.results.result import OpenedAs
from gemma4vec.evaluation.scoring.mteb_suite import MtebSuite, open_mteb


def open_any_suite(spec: str, role: Role | None = None, mirror: Path | None = None) -> AnySuite | MtebSuite:
    """Open what a person types after --suite: `mteb:TASK`, or a name that `open_suite` takes.

    Arguments and errors are those of `open_suite` and `open_mteb`.
    """
    task = spec.removeprefix("mteb:")
    return open_suite(spec, role=role, mirror=mirror) if task == spec else open_mteb(task, role)


def opened_as(spec: str, task: str | None = None, mirror: str | Path | None = None) -> OpenedAs:
    """What a person typed, with absolute paths, so that the suite opens again from every folder.

    Args:
        task: of a suite of several.
        mirror: folder with copies of hub data sets, if one was named.
    """
    return {"spec": absolute_spec(spec), "task": task, "mirror": str(Path(mirror).absolute()) if mirror else None}


def open_retrieval_suite(how: Mapping[str, Any]) -> RetrievalSuite:
    """One retrieval suite from `spec`, `task` and `mirror`.

    Raises:
        InputError: it is not there, it is of another kind, or a group without a task's name.
    """
    mirror = how.get("mirror")
    return require_retrieval(open_any_suite(str(how["spec"]), mirror=Path(mirror) if mirror else None), how.get("task"))


def require_retrieval(suite: Any, task: str | None) -> RetrievalSuite:
    """One retrieval suite, also as a task of a group.

    Raises:
        InputError: another kind of suite, a group without a task's name, or an unknown task.
    """
    members = getattr(suite, "members", [suite])
    names = [one.name for one in members]
    if task is not None:
        members = [one for one in members if one.name == task]
        if not members:
            raise InputError(f"{suite.name} has no task '{task}'; it has {', '.join(names[:20])}")
    if len(members) > 1:
        raise InputError(f"{suite.name} has {len(members)} tasks; inspect one: --task {names[0]}")
    if not isinstance(members[0], RetrievalSuite):
        raise InputError(f"{suite.name} is not a retrieval suite ({suite.kind}); inspect needs queries and documents")
    return members[0]
