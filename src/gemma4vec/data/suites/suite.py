"""What every suite can say about itself, so that callers do not test for its kind."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gemma4vec.data.suites.kinds import MAIN_METRIC, Kind, Role
from gemma4vec.data.suites.texts import SuiteTexts

# Keys that a list of suites may set for every suite in it.
COMMON_OPTIONS = frozenset({"suite", "name", "role", "metric"})


class DescribedSuite(Protocol):
    """A suite whose contents can be identified: each of ours, a group of them, or a task of mteb."""

    @property
    def name(self) -> str:
        """Name for people and results."""

    @property
    def kind(self) -> Kind:
        """What its scores mean."""

    @property
    def role(self) -> Role | None:
        """`dev` suites guide choices; a `final` suite is scored once for each frozen recipe."""

    @property
    def metric(self) -> str | None:
        """The main metric; None: the usual one of the kind (`MAIN_METRIC`)."""

    @property
    def source(self) -> dict[str, Any] | None:
        """Data set and revision, as JSON values; None for a suite from files."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Sizes, and numbers of unusual texts."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the contents."""

    def details(self) -> dict[str, Any]:
        """Facts beyond those of every suite, as JSON values; stored with each result."""


class Suite(DescribedSuite, Protocol):
    """One task that a model is scored on."""

    @property
    def options(self) -> frozenset[str]:
        """Keys that a list of suites may set for this suite."""

    @property
    def members(self) -> Sequence["Suite"]:
        """The tasks: only this one."""

    def texts(self) -> SuiteTexts:
        """The texts that must not be in training data."""

    def size(self) -> str:
        """The number of its items, in words."""

    def how_to_shrink(self) -> str:
        """How a person evaluates a part of it, in words."""


def describe_suite(suite: DescribedSuite) -> dict[str, Any]:
    """Identity of a suite's contents, and its size, as JSON values; for a group also those of each task."""
    return {
        "fingerprint": suite.fingerprint,
        "role": suite.role,
        "kind": suite.kind,
        "metric": suite.metric or MAIN_METRIC[suite.kind],
        "source": suite.source,
        **suite.counts,
        **suite.details(),
    }
