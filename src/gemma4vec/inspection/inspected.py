"""What an inspection found, and what it looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.scoring.ranking import Ranker
from gemma4vec.inspection.advice import Advice
from gemma4vec.inspection.attributes import Value
from gemma4vec.inspection.geometry.figures import Figure
from gemma4vec.inspection.kinds import Flags, KindCount
from gemma4vec.inspection.reading import Reading
from gemma4vec.inspection.slices import Slice
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.text.text_embedder import TextEmbedder

Columns = dict[str, list[Value]]


def found_again(spec: str) -> str:
    """A model or suite as typed; a path that exists as a whole one, which is found from every folder."""
    return str(Path(spec).absolute()) if spec and Path(spec).exists() else spec


@dataclass(frozen=True)
class Subject:
    """A model, and the words by which a later command opens it again.

    Attributes:
        spec: what a person typed.
        dtype, max_tokens: as typed; None for the model's own.
        run: the run that it comes from.
    """

    model: TextEmbedder | Ranker
    spec: str
    dtype: str | None = None
    max_tokens: int | None = None
    run: RunFolder | None = None

    def as_json(self) -> dict[str, Any]:
        """For inspection.json."""
        again = {
            "spec": self.spec if self.spec == "bm25" else found_again(self.spec),
            "dtype": self.dtype,
            "max_tokens": self.max_tokens,
        }
        return {"name": self.model.name, "fingerprint": self.model.fingerprint, "open": again}


@dataclass(frozen=True)
class Wanted:
    """What an inspection does beyond its usual steps.

    Attributes:
        probes: names of probes to run (`probes.run_probes.NAMES`).
        layers: score each layer.
        clusters: topics of the queries.
        map: a map of documents and queries; topics too.
    """

    probes: tuple[str, ...] = ()
    layers: bool = False
    clusters: bool = False
    map: bool = False


NOTHING_MORE = Wanted()


@dataclass(frozen=True)
class Inspection:
    """Everything that was found.

    Attributes:
        sealed: bool[N]; None where no query is sealed, as in a suite of one.
        slices: paired ones first; absolute ones after them.
        flags: kinds of failure, bool[N] each.
        tokens: of each document, int64[M], -1 where they were not counted; None for a model without a limit.
        notes: what is missing, in sentences.
        extras: contents of the files that were asked for, by name.
        touched: queries that the training data touches (`slices.touched_slice`); None where nobody knows.
    """

    subject: Subject
    against: Subject | None
    suite: RetrievalSuite
    fingerprint: str
    metric: str
    reading: Reading
    other: Reading | None
    columns: Columns
    sealed: npt.NDArray[np.bool_] | None
    slices: list[Slice]
    flags: Mapping[str, Flags]
    kinds: list[KindCount]
    figures: list[Figure]
    advice: list[Advice]
    tokens: npt.NDArray[np.int64] | None
    limit: int | None
    steps: dict[str, str]
    notes: list[str] = field(default_factory=list)
    extras: Mapping[str, Any] = field(default_factory=dict)
    touched: Mapping[str, Any] | None = None

    @property
    def open(self) -> npt.NDArray[np.bool_]:
        """Queries whose values may be shown, bool[N]."""
        return np.ones(len(self.suite.queries), dtype=bool) if self.sealed is None else ~self.sealed
