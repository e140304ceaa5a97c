"""`gemma4vec privacy MODEL --suite DEV`: how far vectors leak under each defense, and what the defense costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.cli.dtype import DtypeOption, read_dtype
from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.data.suites.retrieval import RetrievalSuite
    from gemma4vec.inversion.held_out import Split

ROLES = ("document", "query")


def privacy_command(
    model: Annotated[
        str, typer.Argument(help="A run folder, a run id, a sentence-transformers folder, a hub id or bundled:NAME.")
    ],
    suite: Annotated[
        str, typer.Option("--suite", help="Dev suite that says what a defense costs: a name or folder.", metavar="DEV")
    ],
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            "--texts",
            help="Texts to attack: .txt (one a line) or rows (.jsonl, their queries). Repeatable. Default: sentences "
            "of the suite's documents.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    role: Annotated[
        str, typer.Option("--as", help="Prompt of the texts: document or query.", metavar="ROLE")
    ] = "document",
    held_out: Annotated[int, typer.Option("--held-out", help="Number of texts to attack.")] = 1_000,
    most: Annotated[int, typer.Option("--max-texts", help="Use at most this many texts.", min=100)] = 20_000,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page.", metavar="PAGE", show_default=False)
    ] = None,
    dtype: DtypeOption = "auto",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Encode every text; do not use cached vectors.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the held-out texts and of noise.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Measure how far a model's vectors give their texts away, and what each defense costs in retrieval.

    The attacker is a regression from vectors to words: a lower bound, a stronger attacker recovers more.
    """
    if role not in ROLES:
        raise InputError(f"--as {role}: use document or query")
    wanted = read_dtype(dtype)
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--html {html}: the page's name must end in .html")
    from gemma4vec.api.scoring import open_scorer
    from gemma4vec.cli.inversion.dev_suite import open_dev_suite
    from gemma4vec.cli.output import emit
    from gemma4vec.evaluation.scoring.evaluate import record_command_look
    from gemma4vec.evaluation.scoring.guards import check_allowed
    from gemma4vec.inversion.held_out import split_texts
    from gemma4vec.inversion.privacy import METRIC, encode_all, measure_privacy
    from gemma4vec.machine.terminal import bars_by_stage

    opened = open_dev_suite(suite)
    found, sources = _read_texts(texts or [], opened, most, seed)
    split: Split = split_texts(found, sources, held_out=held_out, seed=seed)
    embedder: Any = open_scorer(model, wanted, None, cached=not no_cache)
    check_allowed(embedder, [opened])
    with bars_by_stage("privacy") as report:
        encoded = encode_all(embedder, opened, split, as_queries=role == "query", report=report)
        measured = measure_privacy(encoded, opened, split, seed=seed, report=report)
    record_command_look("privacy", embedder, opened, [METRIC])
    result = {"model": embedder.name, "suite": opened.name, "as": role, "seed": seed, **measured}
    if html is not None:
        from gemma4vec.report.privacy_page import write_privacy_page

        result["page"] = str(write_privacy_page(result, html))
    emit(as_json, result, _render)


def _read_texts(files: list[Path], suite: "RetrievalSuite", most: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts and the name of each one's source."""
    from gemma4vec.inversion.privacy import suite_texts

    if not files:
        found = suite_texts(suite, most, seed)
        return found, [suite.name] * len(found)
    from gemma4vec.inversion.read_texts import read_texts

    return read_texts(files, most, seed)


def _render(result: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    rows = [
        [
            row["name"],
            f"{row['cosine']:.3f}",
            _mean(row["naive"]),
            f"{_mean(row['adaptive'])} [{row['adaptive']['low']:.3f}, {row['adaptive']['high']:.3f}]",
            _mean(row["shuffled"]),
            _mean(row["use"]),
            f"{row['use_change']['mean']:+.3f} [{row['use_change']['low']:+.3f}, {row['use_change']['high']:+.3f}]",
        ]
        for row in result["defenses"]
    ]
    columns = ["defense", "cosine", "F1 naive", "F1 adaptive", "shuffled", "nDCG@10", "change of nDCG@10"]
    floors = ", ".join(f"{name} {value['f1']['mean']:.3f}" for name, value in result["floors"].items())
    counted = result["texts"]
    lines = [
        f"F1 of the words of {counted['held_out']:,} held-out texts, learned from {counted['learned']:,} others; "
        f"floors: {floors}; the text itself 1.",
        result["sentence"],
        f"F1 is {result['remark']}.",
    ]
    lines += [f"page: {result['page']}"] if "page" in result else []
    return Group(table(columns, rows, f"{result['model']} on {result['suite']}"), *(Text(line) for line in lines))


def _mean(value: dict[str, float]) -> str:
    return f"{value['mean']:.3f}"
