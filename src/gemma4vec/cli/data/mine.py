"""`gemma4vec data mine TRAIN --out FILE`: mine hard negatives with BM25, a model, or both."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gemma4vec.errors import InputError
from gemma4vec.files import refuse_overwriting


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
    from gemma4vec.api.mining import documents_of, mine_sources, mining_rules, open_for_mining
    from gemma4vec.cli.output import emit
    from gemma4vec.data.loading.resolve_names import resolve_sources

    if choose not in ("top", "draw"):
        raise InputError(f"--choose {choose}: use top or draw")
    chosen: Literal["top", "draw"] = "top" if choose == "top" else "draw"
    rules = mining_rules(n, _ranks(ranks), share, margin, chosen, relabel, by_model=model is not None)
    # A wrong --out, --corpus or --model is reported before anything is read.
    refuse_overwriting([out], [*train, *(corpus or [])])
    documents = [document for file in corpus or [] for document in documents_of(file)]
    opened = open_for_mining(model) if model else None
    summary = mine_sources(
        resolve_sources(train),
        out,
        rules,
        documents=documents,
        model=opened,
        bm25=not model if bm25 is None else bm25,
        scores=scores,
        fresh=fresh,
        code=code,
    )
    emit(as_json, summary, _render)


def _ranks(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*([0-9]{1,9})\s*-\s*([0-9]{1,9})\s*", text)
    if found is None:
        raise InputError(f"--ranks {text}: use FIRST-LAST, such as 1-100")
    return int(found[1]), int(found[2])


def _render(summary: dict[str, Any]) -> Any:
    from gemma4vec.api.mining import summary_rows
    from gemma4vec.cli.output import table

    rows = summary_rows(summary)
    if "scored" in summary:
        rows.append(["rows with scores", summary["scored"]])
    rows += [[f"seconds: {name}", f"{value:.1f}"] for name, value in summary["seconds"].items() if value >= 0.05]
    return table(["", "count"], rows, title=summary["out"])
