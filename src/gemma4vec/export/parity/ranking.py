"""Whether an export ranks as the model does: paired nDCG@10 on a dev suite, with a test of equivalence.

Shapes: N queries, M documents, D dimensions.
"""

from dataclasses import asdict, dataclass
from typing import Any

from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.evaluate import record_command_look
from gemma4vec.evaluation.scoring.vector_ranking import score_vectors
from gemma4vec.export.runtimes.job import Vectors
from gemma4vec.export.source import Source
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.model.inference.truncated_embedder import TruncatedEmbedder
from gemma4vec.statistics.equivalence import equivalence_test
from gemma4vec.text.text_embedder import TextEmbedder
from gemma4vec.training.monitoring.background_eval import dev_suite_of

METRIC = "ndcg@10"
QUERIES, DOCUMENTS = 200, 600
SAME_MODEL = ("f32", "f16")  # number types whose limits say that the export is the model


@dataclass(frozen=True)
class RankingParity:
    """Paired nDCG@10 of an export and the model.

    Attributes:
        suite: name of the dev suite, or of the part that was ranked.
        queries, documents: their numbers.
        model, export: mean nDCG@10.
        difference: export - model, mean over queries.
        low, high: 90% interval of the difference.
        margin: largest difference that does not matter.
        equivalent: whether the difference was shown to be smaller; so is one that is 0 for every query.
    """

    suite: str
    queries: int
    documents: int
    model: float
    export: float
    difference: float
    low: float
    high: float
    margin: float
    equivalent: bool

    def as_json(self) -> dict[str, Any]:
        """The attributes by name."""
        return asdict(self)


def open_dev_suite(source: Source, spec: str | None, queries: int, documents: int) -> RetrievalSuite:
    """A part of the suite that `spec` names; by default the one on which the run's last stage was evaluated.

    Raises:
        InputError: there is none, it is not for retrieval, or the ledger knows it as final or locked.
    """
    if spec is not None:
        opened = open_suite(spec)
        if not isinstance(opened, RetrievalSuite):
            raise InputError(f"--suite {spec}: an export is compared on a single retrieval suite")
        suite = opened
    else:
        suite = _of_run(source)
    sample = sample_suite(suite, queries, documents, keep="relevant")
    check_choice("--suite", *([suite] if sample is suite else [suite, sample]))
    return sample


def _of_run(source: Source) -> RetrievalSuite:
    noted = (source.run.manifest.get("dev_suites") or {}) if source.run is not None else {}
    if source.run is None or not noted:
        raise InputError(f"{source.name} names no dev suite on which to compare rankings; name one with --suite")
    return dev_suite_of(source.run, max(map(int, noted)))


def record_ranking(command: str, source: Source, suite: RetrievalSuite, *, dtype: str, dimension: int) -> None:
    """Record that the model, and what was made of it, were scored on the suite.

    An export in f32 or f16 is the model. One of fewer bits is another model, as it is for `eval`.

    Args:
        command: that compares them.
        dtype, dimension: of the export; the model is scored on as many dimensions.
    """
    model = source.embedder
    cut: TextEmbedder = model if dimension == model.dimension else TruncatedEmbedder(model, dimension)
    record_command_look(command, cut, suite, [METRIC])
    if dtype not in SAME_MODEL:
        record_command_look(command, cut, suite, [METRIC], variant=dtype)


def document_texts(suite: RetrievalSuite) -> list[str]:
    """The documents as clients send them: title, space, text."""
    return [f"{title} {text}" if title else text for text, title in suite.corpus]


def compare_rankings(
    suite: RetrievalSuite, model: tuple[Vectors, Vectors], export: tuple[Vectors, Vectors], margin: float
) -> RankingParity:
    """Compare two sets of vectors.

    Args:
        suite: the part of the suite.
        model: the model's vectors of queries and documents, `[N, D]` and `[M, D]`.
        export: the export's.
        margin: largest difference that does not matter.
    """
    ours_N, theirs_N = score_vectors(suite, *model), score_vectors(suite, *export)
    differences_N = theirs_N - ours_N
    found = equivalence_test(differences_N, margin)
    same = not differences_N.any()
    return RankingParity(
        suite.name,
        len(suite.queries),
        len(suite.corpus),
        float(ours_N.mean()),
        float(theirs_N.mean()),
        found.mean,
        found.interval.low,
        found.interval.high,
        margin,
        same or found.shown,
    )
