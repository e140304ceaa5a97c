"""Several suites of one kind as one: a score for each, and one mean over them."""

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
    """Tasks that are averaged: `members` are of one kind and have different names."""

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
        """SHA-256 over the members' names and contents; their order does not count."""
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
    """A group, checked. Without a role of its own it has its members', if they have one.

    Raises:
        InputError: no members, two of one name or of the same contents, of different kinds or roles, or a dev group
            with a final member.
    """
    if not members:
        raise InputError(f"{name}: no suites; name at least one")
    names = [one.name for one in members]
    twice = sorted({one for one in names if names.count(one) > 1})
    if twice:
        raise InputError(f"{name}: two suites are named {twice[0]!r}; give one of them another name")
    kinds = sorted({one.kind for one in members})
    if len(kinds) > 1:
        raise InputError(f"{name}: {' and '.join(kinds)} mean different things and have no mean; make a suite of each")
    roles = {one.role for one in members}
    if role is None:
        if len(roles) > 1:
            said = ", ".join(f"{one.name} is {one.role or 'neither'}" for one in members)
            raise InputError(f"{name}: dev and final are not one suite ({said}); make two, or say role: final for all")
        (role,) = roles
    if role == "dev" and "final" in roles:
        raise InputError(f"{name}: it holds a final suite, so it cannot be dev; leave that out or say role: final")
    places: dict[str, str] = {}
    for one in members:
        other = places.setdefault(one.fingerprint, one.name)
        if other != one.name:  # its queries would count twice, and the interval would be too narrow
            raise InputError(f"{name}: {other!r} and {one.name!r} have the same contents; leave one of them out")
    members = [replace(one, role=one.role or role) for one in members]  # seen alone later, it is what it was here
    counts: dict[str, int] = {}
    for one in members:
        for key, count in one.counts.items():
            counts[key] = counts.get(key, 0) + count
    return SuiteGroup(name, list(members), role, metric, source, counts)


def _name(one: OneSuite) -> str:
    return one.name


def _identity(one: OneSuite) -> tuple[str, str]:
    return one.name, one.fingerprint
