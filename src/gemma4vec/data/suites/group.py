"""A group of suites of one kind: a score for each suite, and their mean."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from gemma4vec.data.suites.held_out_rows import RowSuite
from gemma4vec.data.suites.kinds import Kind, Role
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.data.suites.sts import StsSuite
from gemma4vec.data.suites.suite import describe_suite
from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text

OneSuite = RetrievalSuite | StsSuite | RowSuite


@dataclass
class SuiteGroup:
    """Tasks whose scores are averaged; `members` have the same kind and different names."""

    name: str
    members: list[OneSuite]
    role: Role | None = None
    metric: str | None = None
    source: dict[str, Any] | None = None
    counts: dict[str, int] = field(default_factory=dict)

    options: ClassVar[frozenset[str]] = frozenset({"suite", "role"})

    @property
    def kind(self) -> Kind:
        """The members' kind."""
        return self.members[0].kind

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the members' names and contents, whatever their order."""
        return sha256_text("group", *(part for one in sorted(self.members, key=_name) for part in _identity(one)))

    def details(self) -> dict[str, Any]:
        """What identifies each task."""
        return {"tasks": {one.name: describe_suite(one) for one in self.members}}


AnySuite = OneSuite | SuiteGroup


def make_group(
    name: str,
    members: Sequence[OneSuite],
    role: Role | None = None,
    metric: str | None = None,
    source: dict[str, Any] | None = None,
) -> SuiteGroup:
    """Check the members and return a group; without `role`, the group has its members' role.

    Raises:
        InputError: there are no members; two have the same name or contents; kinds or roles differ; or a dev group has
            a final member.
    """
    if not members:
        raise InputError(f"{name}: no suites; name at least one")
    names = [one.name for one in members]
    twice = sorted({one for one in names if names.count(one) > 1})
    if twice:
        raise InputError(f"{name}: two suites are named {twice[0]!r}; give one of them another name")
    kinds = sorted({one.kind for one in members})
    if len(kinds) > 1:
        raise InputError(f"{name}: scores of {' and '.join(kinds)} cannot be averaged; make a separate group of each")
    roles = {one.role for one in members}
    if role is None:
        if len(roles) > 1:
            listed = ", ".join(f"{one.name} is {one.role or 'neither'}" for one in members)
            raise InputError(f"{name}: roles differ ({listed}); make two groups, or set role: final for all")
        (role,) = roles
    if role == "dev" and "final" in roles:
        raise InputError(f"{name}: it has a final suite, so it cannot be dev; leave that suite out or set role: final")
    places: dict[str, str] = {}
    for one in members:
        other = places.setdefault(one.fingerprint, one.name)
        if other != one.name:  # equal queries would count twice and make the interval too narrow
            raise InputError(f"{name}: {other!r} and {one.name!r} have the same contents; leave one of them out")
    members = [replace(one, role=one.role or role) for one in members]  # a member opened alone later keeps its role
    counts: dict[str, int] = {}
    for one in members:
        for key, count in one.counts.items():
            counts[key] = counts.get(key, 0) + count
    return SuiteGroup(name, list(members), role, metric, source, counts)


def _name(one: OneSuite) -> str:
    return one.name


def _identity(one: OneSuite) -> tuple[str, str]:
    return one.name, one.fingerprint
