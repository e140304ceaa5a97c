"""What a comparison found."""

from dataclasses import dataclass, field
from typing import Any

from gemma4vec.export.parity.ranking import RankingParity
from gemma4vec.export.runtimes.job import RoleText
from gemma4vec.text.sanitize import sanitize

_SHOWN = 40  # characters of a text


@dataclass
class ParityReport:
    """Numbers and faults of one comparison.

    Attributes:
        model: name of the model.
        fingerprint: hash of its weights and settings.
        runtime: name and version of the program that ran the export.
        dtype: number type, which sets the limits.
        dimension: dimensions that carry values.
        width: length of the vectors that the program returns.
        texts: number of compared texts.
        cosine_min, cosine_mean: over these texts, to our vectors.
        alone_min: smallest cosine of a text alone, or in another batch, to itself.
        tokens: number of texts whose token ids were compared; 0: the program does not say.
        over_limit: what happens to a text over the limit: "truncates", "refuses", "reads whole", or "unknown".
        ranking: on the dev suite; None if vectors could not be ranked.
        problems: one line each, the most telling first.
        cause: the likely cause of the problems.
    """

    model: str
    fingerprint: str
    runtime: str
    dtype: str
    dimension: int
    width: int = 0
    texts: int = 0
    cosine_min: float | None = None
    cosine_mean: float | None = None
    alone_min: float | None = None
    tokens: int = 0
    over_limit: str = "unknown"
    ranking: RankingParity | None = None
    problems: list[str] = field(default_factory=list)
    cause: str = ""

    @property
    def passed(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """The attributes by name, for `parity.json` and `--json`."""
        return {**vars(self), "ranking": self.ranking.as_json() if self.ranking else None, "passed": self.passed}

    def line(self) -> str:
        """The failure in one line: the first problem, the likely cause, the number of other problems."""
        more = f" ({len(self.problems) - 1} more differences)" if len(self.problems) > 1 else ""
        cause = f"; likely cause: {self.cause}" if self.cause else ""
        return f"{self.problems[0]}{more}{cause}"


def shown(text: RoleText) -> str:
    """A text for a message: its role and its beginning."""
    clean = sanitize(text.text).replace("\n", "\\n")
    return f"{text.role} '{clean if len(clean) <= _SHOWN else clean[: _SHOWN - 1] + '…'}'"
