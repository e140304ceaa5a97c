"""The gate of faithfulness, fitted to a model: how near a text must be to its query, in this model's cosines.

Cosines of one model say nothing of another's: related queries are at .4 in one space and at .8 in the next. So the gate
is a quantile of what the model itself says of near queries: the cosines of each dev query and the queries of a log that
are nearest to it. No judgment is read.

Shapes: Q queries, N cosines, d dimensions.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.fanout.keep import same_words
from gemma4vec.fanout.setting import Setting
from gemma4vec.fanout.writers import LogWriter

PASSING = 0.75  # share of the nearest queries that pass
_PAIRS = 20_000  # pairs of queries by chance


@dataclass(frozen=True)
class Gate:
    """A gate and where it comes from.

    Attributes:
        faithful: least cosine of a text to its query.
        fitted: whether it was fitted; if not, a person gave it.
        source: which queries are near ones; empty where it was given.
        nearest: number of near queries of each dev query.
        passing: share of them that passes.
        queries: number of dev queries.
        chance: median cosine of two different dev queries; None where there is one alone.
    """

    faithful: float
    fitted: bool = False
    source: str = ""
    nearest: int = 0
    passing: float = PASSING
    queries: int = 0
    chance: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The gate as JSON values, with its sentence."""
        return {**asdict(self), "sentence": self.sentence()}

    def sentence(self) -> str:
        """What a text must be, and why."""
        if not self.fitted:
            return f"Gate: cosine {self.faithful:.3f} to the query, as given."
        chance = "" if self.chance is None else f"; two queries by chance: {self.chance:.3f}"
        return (
            f"Gate: cosine {self.faithful:.3f} to the query, which {self.passing:.0%} of the {self.nearest} nearest "
            f"{self.source} reach ({self.queries} dev queries, no judgments{chance})."
        )


def with_gate(setting: Setting, faithful: float | None) -> tuple[Setting, Gate]:
    """The setting with this gate, or with the one that is fitted to it where there is none."""
    gate = Gate(faithful) if faithful is not None else fit_gate(setting)
    choices = setting.choices
    gates = replace(choices.gates, faithful=gate.faithful)
    return replace(setting, choices=replace(choices, gates=gates)), gate


def fit_gate(setting: Setting, passing: float = PASSING) -> Gate:
    """The cosine that `passing` of the nearest queries reach: `n` of each dev query, without its own words.

    Near queries are those of the log; without one the writer's own texts, and without these the other dev queries.
    """
    source, log = _near_queries(setting)
    cosines_N = near_cosines(setting, log)
    if not len(cosines_N):  # one dev query, or all of the same words: nothing to fit to
        return Gate(setting.choices.gates.faithful)
    return Gate(
        faithful=float(np.quantile(cosines_N, 1 - passing)),
        fitted=True,
        source=source,
        nearest=setting.choices.n,
        passing=passing,
        queries=len(setting.suite.queries),
        chance=chance_cosine(setting),
    )


def near_cosines(setting: Setting, log: LogWriter) -> NDArray[np.float32]:
    """Cosines `[N]` of every dev query and the `n` nearest queries of a log that have other words."""
    n, found = setting.choices.n, []
    near = log.near(setting.queries_Qd, 4 * n)  # repetitions of the query and of each other are left out
    for query, texts in zip(setting.suite.queries, near, strict=True):
        seen, kept = {same_words(query)}, []
        for text, cosine in texts:
            words = same_words(text)
            if words not in seen:
                seen.add(words)
                kept.append(cosine)
        found += kept[:n]
    return np.array(found, dtype=np.float32)


def chance_cosine(setting: Setting) -> float | None:
    """The median cosine of two different dev queries; None where there is one alone."""
    queries_Qd, generator = setting.queries_Qd, np.random.default_rng(0)
    if len(queries_Qd) < 2:
        return None
    first, second = generator.integers(len(queries_Qd), size=(2, _PAIRS))
    different = first != second
    cosines = (queries_Qd[first[different]] * queries_Qd[second[different]]).sum(axis=1)
    return float(np.median(cosines))


def _near_queries(setting: Setting) -> tuple[str, LogWriter]:
    """(what they are, queries with their vectors)."""
    if setting.log is not None:
        return "queries of the log", setting.log
    own = setting.writer.own_texts()
    if own is not None:
        return "texts that the decoder learned from", own
    return "other dev queries", LogWriter(setting.suite.queries, setting.queries_Qd)
