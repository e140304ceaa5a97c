"""`gemma4vec data mine TRAIN --out FILE`: hard negatives by BM25, by a model, or both."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gemma4vec.errors import InputError


def mine_command(
    train: Annotated[
        list[str],
        typer.Argument(metavar="TRAIN...", help="Files of rows, a recipe (.yaml), a run folder, pycode or debian."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Rows with negatives: .jsonl or .jsonl.gz.")],
    corpus: Annotated[
        list[Path] | None,
        typer.Option(
            "--corpus",
            metavar="FILE",
            help="More documents: a suite's folder, JSON lines {title?, text}, or a .txt of one a line; "
            "the rows' own texts are always there.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Search with this model: a run (finished or not), a folder, a hub id.", show_default=False
        ),
    ] = None,
    bm25: Annotated[
        bool | None, typer.Option("--bm25/--no-bm25", help="Search with BM25; by default where there is no --model.")
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Negatives for each row.", min=1)] = 10,
    ranks: Annotated[str, typer.Option("--ranks", help="First and last rank that candidates may have.")] = "1-100",
    share: Annotated[
        float | None,
        typer.Option(
            "--share",
            help="Drop candidates that score above this share of the positive's score; 0.95 with a model, else off. "
            "Above 10: off.",
            min=0.0,
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="Drop candidates above the positive's score minus this.", show_default=False),
    ] = None,
    choose: Annotated[str, typer.Option("--choose", help="top: the best that are left; draw: any of them.")] = "top",
    relabel: Annotated[
        float | None,
        typer.Option(
            "--relabel",
            metavar="SHARE",
            help="Make positives of candidates that score at least this share of the positive's (1.0 or more).",
            min=0.0,
            show_default=False,
        ),
    ] = None,
    scores: Annotated[
        bool,
        typer.Option(
            "--scores", help="Write the searcher's scores as the rows' `scores`, for the terms kl and margin_mse."
        ),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Leave out the negatives that rows have already.")] = False,
    code: Annotated[bool, typer.Option("--code", help="The texts are code: BM25 splits identifiers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on stdout.")] = False,
) -> None:
    """Find documents that look as if they answered, and write them beside the rows with scores and origin."""
    from gemma4vec.api.mining import documents_of, mine_sources, mining_rules, open_for_mining
    from gemma4vec.cli.output import emit
    from gemma4vec.data.loading.resolve_names import resolve_sources

    if choose not in ("top", "draw"):
        raise InputError(f"--choose {choose}: use top or draw")
    chosen: Literal["top", "draw"] = "top" if choose == "top" else "draw"
    rules = mining_rules(n, _ranks(ranks), share, margin, chosen, relabel, by_model=model is not None)
    # A wrong --corpus or --model is reported before anything is read.
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
    first, dash, last = text.partition("-")
    if not dash or not first.strip().isdigit() or not last.strip().isdigit():
        raise InputError(f"--ranks {text}: first and last rank with a dash between are needed, such as 1-100")
    return int(first), int(last)


def _render(summary: dict[str, Any]) -> Any:
    from gemma4vec.cli.output import table

    rows: list[list[object]] = [
        ["rows", summary["rows"]],
        ["documents searched", summary["documents"]],
        *([f"negatives by {name}", count] for name, count in summary["by"].items()),
        ["rows with fewer than asked for", summary["short_rows"]],
        ["candidates dropped: too near to the positive", summary["dropped"]],
        ["made positives", summary["relabelled"]],
        *([["rows with scores", summary["scored"]]] if "scored" in summary else []),
    ]
    rows += [[f"seconds: {name}", f"{value:.1f}"] for name, value in summary["seconds"].items() if value >= 0.05]
    return table(["", "count"], rows, title=summary["out"])
