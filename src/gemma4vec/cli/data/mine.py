"""`gemma4vec data mine TRAIN --out FILE`: mine hard negatives with BM25, a model, or both."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.errors import InputError
from gemma4vec.machine.terminal import ProgressBar

if TYPE_CHECKING:
    from gemma4vec.data.mining.hard_negatives import MinedRow
    from gemma4vec.data.mining.searchers import ModelSearcher
    from gemma4vec.data.rows.rows import Row
    from gemma4vec.text.prompts import Document
    from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

DEFAULT_SHARE = 0.95  # NV-Retriever's best (arXiv:2407.15831, table 3)


def mine_command(
    train: Annotated[
        list[str],
        typer.Argument(
            metavar="TRAIN...", help="Training data: JSONL files, a recipe (.yaml), a run folder, pycode or debian."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Output: rows with negatives, .jsonl or .jsonl.gz.")
    ],
    corpus: Annotated[
        list[Path] | None,
        typer.Option(
            "--corpus",
            metavar="FILE",
            help="Further documents: a suite folder, JSON lines {title?, text}, or a .txt with one a line; repeatable. "
            "The rows' own texts are always searched.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Search with this model: a run (finished or not), a folder or a hub id.", show_default=False
        ),
    ] = None,
    bm25: Annotated[
        bool | None, typer.Option("--bm25/--no-bm25", help="Search with BM25; default: only without --model.")
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Number of negatives per row.", min=1)] = 10,
    ranks: Annotated[str, typer.Option("--ranks", help="First and last rank of candidates.")] = "1-100",
    share: Annotated[
        float | None,
        typer.Option(
            "--share",
            help="Drop candidates that score above this fraction of the positive's score; above 10 turns it off. "
            "Default: 0.95 with a model, else off.",
            min=0.0,
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin", help="Drop candidates that score above the positive's score minus this.", show_default=False
        ),
    ] = None,
    choose: Annotated[
        str, typer.Option("--choose", help="top: the best remaining candidates; draw: a random choice of them.")
    ] = "top",
    relabel: Annotated[
        float | None,
        typer.Option(
            "--relabel",
            metavar="SHARE",
            help="Make candidates positives if they score at least this fraction of the positive's score (>= 1.0).",
            min=0.0,
            show_default=False,
        ),
    ] = None,
    scores: Annotated[
        bool,
        typer.Option(
            "--scores", help="Write the searcher's scores to each row's `scores`, for the loss terms kl and margin_mse."
        ),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard the negatives that rows already have.")] = False,
    code: Annotated[bool, typer.Option("--code", help="Treat texts as code: BM25 splits identifiers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")] = False,
) -> None:
    """Find documents that resemble an answer but are none, and add them to the rows with scores and origin."""
    import time

    from gemma4vec.cli.output import emit
    from gemma4vec.data.batching.mixture import MixedRows, Part
    from gemma4vec.data.loading.resolve_names import load_source, resolve_sources
    from gemma4vec.data.mining.hard_negatives import Rules, WithoutNegatives, build_corpus, mine
    from gemma4vec.data.mining.searchers import Bm25Searcher
    from gemma4vec.data.rows.jsonl import write_lines

    if choose not in ("top", "draw"):
        raise InputError(f"--choose {choose}: use top or draw")
    limit = share if share is not None else (DEFAULT_SHARE if model else None)
    rules = Rules(
        n=n,
        window=_ranks(ranks),
        share=None if limit is None or limit > 10 else limit,
        margin=margin,
        choose="top" if choose == "top" else "draw",
        relabel=relabel,
    )
    rules.check(model is not None)
    # Open --corpus and --model first, so that a mistake in them is reported before rows are read.
    documents = [document for file in corpus or [] for document in _documents(file)]
    opened = _open(model) if model else None
    rows: Sequence[Row] = MixedRows([Part(one.name, load_source(one)[0]) for one in resolve_sources(train)])
    rows = WithoutNegatives(rows) if fresh else rows
    made = build_corpus(rows, documents)
    logger.info(f"{len(rows):,} rows, {len(made.documents):,} documents")
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    embedded = _embed(opened, made.documents) if opened is not None else None
    seconds["embedding"] = time.perf_counter() - started
    started = time.perf_counter()
    words = Bm25Searcher(made.documents, code=code) if bm25 or (bm25 is None and not model) else None
    seconds["indexing"] = time.perf_counter() - started
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    with ProgressBar("hard negatives", "rows") as bar:
        found = mine(rows, made, rules, bm25=words, model=embedded, progress=bar)
        write_lines(out, _counted(found, rules.n, counts, scores), level=1)
    seconds["mining"] = time.perf_counter() - started
    summary = {
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
    emit(as_json, summary, _render)


def _ranks(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not dash or not first.strip().isdigit() or not last.strip().isdigit():
        raise InputError(f"--ranks {text}: use FIRST-LAST, such as 1-100")
    return int(first), int(last)


def _embed(model: "TextEmbedder", documents: "list[Document]") -> "ModelSearcher":
    """Embed the corpus with the model."""
    from gemma4vec.data.mining.searchers import ModelSearcher

    with ProgressBar("embedding", "documents") as bar:
        return ModelSearcher(model, documents, bar)


def _open(spec: str) -> "TextEmbedder":
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import MANIFEST, RunFolder, find_run
    from gemma4vec.model.inference.embedder import Embedder
    from gemma4vec.training.export_snapshot import snapshot

    path = Path(spec)
    run: RunFolder | None = RunFolder(path) if (path / MANIFEST).is_file() else None
    if run is None and not path.exists() and ":" not in spec and "/" not in spec:
        try:
            run = find_run(spec, home())
        except InputError:
            run = None  # not a run: the embedder's error lists the other forms
    if run is None:
        return Embedder.load(spec)
    finished = run.model.is_dir()
    return Embedder.load(run.path if finished else snapshot(run))


def _documents(file: Path) -> "Iterator[Document]":
    """The documents of a suite's corpus, of JSON lines, or of plain lines."""
    from gemma4vec.data.rows.jsonl import read_lines
    from gemma4vec.data.rows.records import text_records
    from gemma4vec.data.suites.retrieval import load_suite
    from gemma4vec.text.prompts import Document

    lines: list[Any] = []
    if file.is_dir():
        yield from load_suite(file).corpus
    elif file.name.removesuffix(".gz").endswith(".txt"):
        lines = [one[1:4] for one in text_records(file)]
    else:
        lines = list(read_lines(file))
    for number, value, reason in lines:
        text, title = (value or {}).get("text"), (value or {}).get("title")
        if not isinstance(text, str) or not isinstance(title, str | None):
            raise InputError(f"{file} line {number}: {reason or 'needs a string `text` (and optionally `title`)'}")
        yield Document(text, title or None)
    if not lines and not file.is_dir():
        raise InputError(f"{file}: the corpus is empty; it needs at least one document")


def _counted(found: "Iterator[MinedRow]", n: int, counts: Counter[str], scores: bool) -> Iterator[dict[str, Any]]:
    """Yield each row as a JSON object and count it in `counts`."""
    from dataclasses import replace

    from gemma4vec.data.rows.rows import as_object

    for mined in found:
        new = [origin for origin in mined.origins if origin.by != "given"]
        counts.update({"negatives": len(new), "short_rows": int(len(new) < n)})
        counts.update({"dropped": mined.dropped, "relabelled": mined.relabelled})
        counts.update(f"by {origin.by}" for origin in new)
        notes = {
            "pos": {name: [_rounded(one) for one in scores] for name, scores in mined.positive_scores.items()},
            "neg": [origin.as_json() for origin in mined.origins],
            "relabelled": mined.relabelled,
        }
        counts["scored"] += scores and mined.scores is not None
        yield {**as_object(replace(mined.row, scores=mined.scores if scores else None)), "mined": notes}


def _rounded(score: float) -> float | None:
    return round(score, 5) if score > float("-inf") else None


def _render(summary: dict[str, Any]) -> Any:
    from gemma4vec.cli.output import table

    rows: list[list[object]] = [
        ["rows", summary["rows"]],
        ["documents searched", summary["documents"]],
        *([f"negatives by {name}", count] for name, count in summary["by"].items()),
        ["rows with fewer negatives than requested", summary["short_rows"]],
        ["candidates dropped: too close to the positive", summary["dropped"]],
        ["candidates added as positives", summary["relabelled"]],
        *([["rows with scores", summary["scored"]]] if "scored" in summary else []),
    ]
    rows += [[f"seconds: {name}", f"{value:.1f}"] for name, value in summary["seconds"].items() if value >= 0.05]
    return table(["", "count"], rows, title=summary["out"])
