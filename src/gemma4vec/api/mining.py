"""Hard negatives from Python: `mine_hard_negatives`."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from gemma4vec.api.display import Showing, Shown, progress_shown
from gemma4vec.api.model import Model, ModelLike, open_embedder
from gemma4vec.api.rows import Rows, sources_of
from gemma4vec.api.runs import Run
from gemma4vec.data.batching.mixture import MixedRows, Part
from gemma4vec.data.loading.resolve_names import load_source
from gemma4vec.data.mining.hard_negatives import MinedRow, Rules, WithoutNegatives, build_corpus, mine
from gemma4vec.data.mining.searchers import Bm25Searcher, ModelSearcher
from gemma4vec.data.rows.jsonl import read_lines, write_lines
from gemma4vec.data.rows.records import text_records
from gemma4vec.data.rows.rows import Row, as_object, clean_text, clean_title
from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import InputError
from gemma4vec.files import check_writable, home, refuse_overwriting
from gemma4vec.ledger.run_folder import named_run
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.model.inference.truncated_embedder import TruncatedEmbedder
from gemma4vec.recipe.schema import Source
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_embedder import TextEmbedder

BM25 = "bm25"
DEFAULT_SHARE = 0.95  # NV-Retriever's best (arXiv:2407.15831, table 3)
NO_SHARE = 10.0  # above it, nothing is dropped by its share
logger = logging.getLogger(__name__)


class MinedNegatives(Showing):
    """What mining wrote; `mine_hard_negatives` returns one.

    Attributes:
        out: the file of rows with their negatives, which a recipe names as `path`.
    """

    def __init__(self, summary: dict[str, Any]):
        self.out = Path(summary["out"])
        self._summary = summary

    @property
    def rows(self) -> int:
        """The number of rows written."""
        return int(self._summary["rows"])

    @property
    def negatives(self) -> int:
        """The number of negatives found."""
        return int(self._summary["negatives"])

    @property
    def short_rows(self) -> int:
        """The number of rows with fewer negatives than asked for."""
        return int(self._summary["short_rows"])

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values; the same as `gemma4vec data mine --json` prints."""
        return dict(self._summary)

    def _shown(self) -> Shown:
        return Shown(f"Hard negatives in {self.out}", ["", "count"], summary_rows(self._summary))


def summary_rows(summary: dict[str, Any]) -> list[list[object]]:
    """What was mined, as rows of a table: a name and a count."""
    return [
        ["rows", summary["rows"]],
        ["documents searched", summary["documents"]],
        *([f"negatives by {name}", count] for name, count in summary["by"].items()),
        ["rows with fewer negatives than requested", summary["short_rows"]],
        ["candidates dropped: too close to the positive", summary["dropped"]],
        ["candidates added as positives", summary["relabelled"]],
    ]


def mine_hard_negatives(
    rows: Rows,
    out: str | Path,
    *,
    by: ModelLike | Sequence[ModelLike] = BM25,
    n: int = 10,
    corpus: str | Path | Sequence[str | Path] = (),
    ranks: tuple[int, int] = (1, 100),
    share: float | None = None,
    margin: float | None = None,
    choose: Literal["top", "draw"] = "top",
    relabel: float | None = None,
    scores: bool = False,
    fresh: bool = False,
    code: bool = False,
    progress: bool = True,
) -> MinedNegatives:
    """Find documents that look as if they answered, and write them with the rows. The same as `gemma4vec data mine`.

    Args:
        rows: files of rows, recipes, runs, or rows in memory: `[{"query": ..., "pos": [...]}, ...]`.
        out: the file to write, .jsonl or .jsonl.gz; each row's key `mined` has the scores and the origin.
        by: "bm25", a model (what `load` takes or returns; of an unfinished run its newest checkpoint), or a list of
            both.
        n: negatives for each row.
        corpus: more documents: a suite's folder, JSON lines {title?, text}, or a .txt of one a line.
        ranks: first and last rank, from 1, that candidates may have.
        share: drop candidates that score above this share of the positive's score (NV-Retriever, arXiv:2407.15831);
            None is 0.95 with a model and none without; above 10 none.
        margin: drop candidates above the positive's score minus this.
        choose: "top": the best that are left; "draw": any of them.
        relabel: make positives of candidates that score at least this share of the positive's (arXiv:2505.16967).
        scores: write the searcher's scores as the rows' `scores`, for the loss terms kl and margin_mse.
        fresh: leave out the negatives that rows have already.
        code: the texts are code: BM25 splits identifiers.
        progress: show log lines and the progress of long work on standard error.

    Returns:
        What was found, by number.

    Raises:
        InputError: rows or documents that cannot be read, rules that make no sense, nothing to search with.
        WorkError: the file cannot be written.

    Example:
        >>> import gemma4vec as g4v
        >>> rows = [{"query": f"a {word} tree", "pos": [f"the {word} of a tree"]} for word in ("apple", "pear", "plum")]
        >>> rows.append({"query": "a river", "pos": ["water that flows"]})
        >>> g4v.mine_hard_negatives(rows, out, n=2, ranks=(1, 2), progress=False).negatives
        6
    """
    named = [by] if isinstance(by, str | Path | Model | Run) else list(by)
    models = [one for one in named if not (isinstance(one, str) and one == BM25)]
    if len(models) > 1 or not named:
        raise InputError("by: give 'bm25', one model, or a list of both")
    if choose not in ("top", "draw"):
        raise InputError(f"--choose {choose}: use top or draw")
    rules = mining_rules(n, ranks, share, margin, choose, relabel, by_model=bool(models))
    files = [corpus] if isinstance(corpus, str | Path) else list(corpus)
    with progress_shown(progress), sources_of(rows) as sources:
        # A wrong corpus, model or output is reported before the rows are read.
        refuse_overwriting([Path(out)], files)
        documents = [document for file in files for document in documents_of(Path(file))]
        model = open_for_mining(models[0]) if models else None
        summary = mine_sources(
            sources,
            Path(out),
            rules,
            documents=documents,
            model=model,
            bm25=len(models) < len(named),
            scores=scores,
            fresh=fresh,
            code=code,
        )
    return MinedNegatives(summary)


def mining_rules(
    n: int,
    ranks: tuple[int, int],
    share: float | None,
    margin: float | None,
    choose: Literal["top", "draw"],
    relabel: float | None,
    *,
    by_model: bool,
) -> Rules:
    """The rules, with the share that suits a model.

    Raises:
        InputError: rules that make no sense.
    """
    limit = share if share is not None else (DEFAULT_SHARE if by_model else None)
    used = None if limit is None or limit > NO_SHARE else limit
    rules = Rules(n=n, window=ranks, share=used, margin=margin, choose=choose, relabel=relabel)
    rules.check(by_model)
    return rules


def mine_sources(
    sources: Sequence[Source],
    out: Path,
    rules: Rules,
    *,
    documents: Sequence[Document],
    model: TextEmbedder | None,
    bm25: bool,
    scores: bool,
    fresh: bool,
    code: bool,
) -> dict[str, Any]:
    """Mine, write `out`, and return what was found as JSON values.

    Raises:
        InputError: `out` is one of the sources.
        WorkError: `out` cannot be written, which is found before the search.
    """
    refuse_overwriting([out], [place for source in sources for place in (source.path, source.drop, source.repeat)])
    check_writable(out.parent)
    rows: Sequence[Row] = MixedRows([Part(one.name, load_source(one)[0]) for one in sources])
    rows = WithoutNegatives(rows) if fresh else rows
    made = build_corpus(rows, documents)
    logger.info(f"{len(rows):,} rows, {len(made.documents):,} documents")
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    embedded = _embed(model, made.documents) if model is not None else None
    seconds["embedding"] = time.perf_counter() - started
    started = time.perf_counter()
    words = Bm25Searcher(made.documents, code=code) if bm25 else None
    seconds["indexing"] = time.perf_counter() - started
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    with ProgressBar("hard negatives", "rows") as bar:
        found = mine(rows, made, rules, bm25=words, model=embedded, progress=bar)
        write_lines(out, _counted(found, rules.n, counts, scores), level=1)
    seconds["mining"] = time.perf_counter() - started
    return {
        "out": str(out),
        "rows": len(rows),
        "documents": len(made.documents),
        "searchers": [searcher.name for searcher in (embedded, words) if searcher is not None],
        "share": rules.share,
        "margin": rules.margin,
        **{name: counts[name] for name in ("negatives", "short_rows", "dropped", "relabelled")},
        **({"scored": counts["scored"]} if scores else {}),
        "by": {name.removeprefix("by "): count for name, count in sorted(counts.items()) if name.startswith("by ")},
        "seconds": seconds,
    }


def open_for_mining(model: ModelLike) -> TextEmbedder:
    """A model that searches; of an unfinished run as it was at its newest checkpoint."""
    if isinstance(model, Model):
        embedder = model.embedder
        return embedder if model.truncate_dim is None else TruncatedEmbedder(embedder, model.truncate_dim)
    run = model.run_folder if isinstance(model, Run) else named_run(model, home())
    if run is None or run.model.is_dir():
        return open_embedder(model)
    from gemma4vec.model.inference.embedder import Embedder
    from gemma4vec.training.export_snapshot import snapshot

    return Embedder.load(snapshot(run))


def documents_of(file: Path) -> Iterator[Document]:
    """The documents of a suite's corpus, of JSON lines, or of plain lines.

    Raises:
        InputError: the file cannot be read, is empty, or has a line without a text.
    """
    lines: list[tuple[int, Mapping[str, object] | None, str]] = []
    unusual: Counter[str] = Counter()
    if file.is_dir():
        yield from load_suite(file).corpus
    elif file.name.removesuffix(".gz").endswith(".txt"):
        lines = [(record.number, record.value, record.reason) for record in text_records(file)]
    else:
        lines = list(read_lines(file))
    for number, value, reason in lines:
        text, title = (value or {}).get("text"), (value or {}).get("title")
        if not isinstance(text, str) or not isinstance(title, str | None):
            raise InputError(f"{file} line {number}: {reason or 'a string `text` (and `title`) is needed'}")
        yield Document(clean_text(text, unusual), clean_title(title))
    if not lines and not file.is_dir():
        raise InputError(f"{file}: the corpus is empty; at least one line is needed")


def _embed(model: TextEmbedder, documents: list[Document]) -> ModelSearcher:
    """The model and the corpus's vectors."""
    with ProgressBar("embedding", "documents") as bar:
        return ModelSearcher(model, documents, bar)


def _counted(found: Iterator[MinedRow], n: int, counts: Counter[str], scores: bool) -> Iterator[dict[str, Any]]:
    """The rows as they are written, counted on the way."""
    for mined in found:
        new = [origin for origin in mined.origins if origin.by != "given"]
        counts.update({"negatives": len(new), "short_rows": int(len(new) < n)})
        counts.update({"dropped": mined.dropped, "relabelled": mined.relabelled})
        counts.update(f"by {origin.by}" for origin in new)
        notes = {
            "pos": {name: [_rounded(one) for one in values] for name, values in mined.positive_scores.items()},
            "neg": [origin.as_json() for origin in mined.origins],
            "relabelled": mined.relabelled,
        }
        counts["scored"] += scores and mined.scores is not None
        yield {**as_object(replace(mined.row, scores=mined.scores if scores else None)), "mined": notes}


def _rounded(score: float) -> float | None:
    return round(score, 5) if score > float("-inf") else None
