"""What a store says about itself: the model of its vectors, its fields, and the result of its recall gate."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as dataclass_fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gemma4vec.errors import InputError
from gemma4vec.serving.store.filters import FieldType
from gemma4vec.serving.store.rows import check_fields

FORMAT = 1
Parameters = Mapping[str, int]


class NoStoreError(InputError):
    """There is no store at a location."""


@dataclass(frozen=True)
class Gate:
    """Recall of a store's index against exact search.

    Attributes:
        recall: mean over the held-out queries of the share of the exact top k that the index finds.
        target: what the parameters were tuned for.
        k: length of the rankings.
        queries: number of held-out queries.
        tuned_on: number of other queries, which chose the parameters.
        source: "queries" (given ones) or "documents" (stored vectors, each without itself in its ranking).
        parameters: search parameters that were chosen.
    """

    recall: float
    target: float
    k: int
    queries: int
    tuned_on: int
    source: str
    parameters: dict[str, int]

    @property
    def passed(self) -> bool:
        """Whether the index reaches the target on queries that did not choose its parameters."""
        return self.recall >= self.target

    def line(self) -> str:
        """One line for people."""
        what = "queries" if self.source == "queries" else "documents as queries"
        chosen = ", ".join(f"{name} {value}" for name, value in self.parameters.items()) or "exact"
        verdict = "" if self.passed else f": BELOW {self.target:g}; search exactly, or use another index"
        measured = f"recall@{self.k} {self.recall:.3f} against exact search on {self.queries} held-out {what}"
        return f"{measured} ({chosen}){verdict}"


@dataclass(frozen=True)
class StoreMeta:
    """The description of a store.

    Attributes:
        model: name of the model, for people.
        fingerprint: hash of the model; queries of another model are refused.
        dimension: D, the length of a vector.
        fields: scalar fields that filters can use, by name.
        prompts: the document prompts that the vectors were made with, if known.
        index: kind of the index; "exact" is none.
        parameters: search parameters that the recall gate chose.
        gate: result of the recall gate; None before the first build.
    """

    model: str
    fingerprint: str
    dimension: int
    fields: dict[str, FieldType] = field(default_factory=dict)
    prompts: dict[str, Any] = field(default_factory=dict)
    index: str = "exact"
    parameters: dict[str, int] = field(default_factory=dict)
    gate: Gate | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise InputError(f"a store of dimension {self.dimension}; vectors have at least one number")
        check_fields(self.fields)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Any) -> "StoreMeta":
        """Read JSON values.

        Raises:
            ValueError: not a description of this format; its message is the reason.
        """
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ValueError(f"this version reads stores of format {FORMAT}")
        if unknown := sorted(set(value) - {one.name for one in dataclass_fields(StoreMeta)}):
            raise ValueError(f"unknown key {unknown[0]!r}")
        try:
            return TypeAdapter(StoreMeta).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error

    def indexed(self, index: str, gate: Gate | None) -> "StoreMeta":
        """Return the description with an index and its gate's result."""
        return replace(self, index=index, gate=gate, parameters={} if gate is None else dict(gate.parameters))

    def check_same_rows(self, other: "StoreMeta", location: str) -> None:
        """Check that rows of `other` may be added.

        Raises:
            InputError: another model, dimension or fields.
        """
        self.check_model(other.fingerprint, location)
        if self.dimension != other.dimension:
            raise InputError(f"{location} has dimension {self.dimension}, the rows have {other.dimension}")
        if self.fields != other.fields:
            raise InputError(
                f"{location} has the fields {_named(self.fields)}, the rows have {_named(other.fields)}; "
                "drop the store and build it again"
            )

    def check_model(self, fingerprint: str, location: str) -> None:
        """Check that a model made the vectors.

        Raises:
            InputError: another model did.
        """
        if self.fingerprint != fingerprint:
            raise InputError(
                f"{location} was built by another model ({self.model}, {self.fingerprint[:12]}, not "
                f"{fingerprint[:12]}); use that model, or build another store"
            )


def _named(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in fields.items()) or "(none)"
