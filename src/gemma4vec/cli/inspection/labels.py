"""`gemma4vec inspect labels | judge`: documents that may be right though nobody judged them, and their verdicts."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.cli.inspection.opened import AsJson, Dev, Dtype, Mirror, TaskName, open_dev_suite, open_subjects

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from gemma4vec.inspection.labels.draws import Draw

DRAWN = {
    "random": "random order: estimates all flags",
    "top": "the queue's top",
    "other": "not recorded how it was drawn",
}


def labels_command(
    model: Annotated[
        list[str],
        typer.Argument(help="Two models or more, best of different kinds: bm25 and runs.", metavar="MODEL..."),
    ],
    suite: Dev,
    task: TaskName = None,
    order: Annotated[
        str,
        typer.Option(
            "--order",
            help="Of the queue: likely (near copies and high ranks first) or random, by which alone the share of right "
            "ones among all flags is known.",
            metavar="ORDER",
        ),
    ] = "likely",
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the random order; default: 0.", min=0, show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write; default: HOME/labels/DEV.", metavar="DIR", show_default=False),
    ] = None,
    dtype: Dtype = "auto",
    mirror: Mirror = None,
    as_json: AsJson = False,
) -> None:
    """Queue documents that may be right though nobody judged them, and bound the scores by them.

    Write 1 (right) or 0 (wrong) for "grade" in queue.jsonl, also for documents in "right" that the suite judges;
    `gemma4vec inspect judge` records it beside the suite.
    """
    from gemma4vec.cli.output import emit
    from gemma4vec.errors import InputError
    from gemma4vec.files import home
    from gemma4vec.inspection.labels.find_labels import check_labels, find_labels
    from gemma4vec.ledger.run_folder import slug
    from gemma4vec.machine.terminal import bars_by_stage

    draw = _draw(order, seed)
    if len(set(model)) < max(2, len(model)):
        raise InputError("inspect labels: name two different models or more; one alone agrees with itself")
    loaded = open_dev_suite(suite, task, mirror, "inspect labels shows single queries")
    folder = out or home() / "labels" / slug(loaded.name)
    check_labels(loaded, folder)
    subjects = open_subjects(model, dtype)
    with bars_by_stage(loaded.name) as report:
        found = find_labels(subjects, loaded, folder, draw=draw, progress=report)
    emit(as_json, found, _render)


def judge_command(
    queue: Annotated[Path, typer.Argument(help="A queue of `inspect labels` with grades in it.", metavar="QUEUE")],
    suite: Dev,
    task: TaskName = None,
    by: Annotated[str, typer.Option("--by", help="Who judged.", metavar="NAME")] = "",
    mirror: Mirror = None,
    as_json: AsJson = False,
) -> None:
    """Record the grades of a queue beside the suite, which stays as it is."""
    from gemma4vec.cli.output import emit
    from gemma4vec.evaluation.scoring.open_any_suite import open_retrieval_suite
    from gemma4vec.inspection.labels.find_labels import graded_lines, record_queue

    graded = graded_lines(queue)  # before the suite is loaded
    opened_as = {"spec": suite, "task": task, "mirror": None if mirror is None else str(mirror)}
    emit(as_json, record_queue(graded, queue, open_retrieval_suite(opened_as), by), _recorded)


def _draw(order: str, seed: int | None) -> "Draw":
    from gemma4vec.errors import InputError
    from gemma4vec.inspection.labels.draws import LIKELY, LIKELY_FIRST, RANDOM, Draw

    if order not in (LIKELY, RANDOM):
        raise InputError(f"--order {order}: use likely or random")
    if order == LIKELY and seed is not None:
        raise InputError("--seed belongs to --order random; the order of the likely ones has no chance in it")
    return Draw("random", seed or 0) if order == RANDOM else LIKELY_FIRST


def _recorded(one: Mapping[str, Any]) -> str:
    contradicted = one["labels_contradicted"]
    labels = f"; {contradicted} contradict a label of the suite" if contradicted else ""
    return f"{one['added']} of {one['graded']} grades were new{labels}; they are in {one['file']}"


def _render(found: Mapping[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    order = f"random, seed {found['drawn']['seed']}" if "seed" in found["drawn"] else "likely ones first"
    head = (
        f"{found['suite']['name']}: {found['flagged']} doubtful pairs of {found['flagged_queries']} queries, "
        f"{found['near_copies']} near copies of right documents; {found['queue']} are in the queue ({order})"
    )
    if found["withheld"]:
        head += f"; {found['withheld']} queries are sealed in another suite that has them, and left out"
    parts: list[RenderableType] = [Text(head), *_verdicts(found), _scores(found)]
    base = "the column before" if found["judged"] else "the suite's labels"
    assumed = (
        f"Flags right, least and most: beyond {base}, of the {found['unread_flags']} flagged documents without a "
        "verdict all or any may be right; every other document that nobody judged counts as wrong."
    )
    return Group(*parts, Text(assumed), Text(f"folder: {found['folder']}"))


def _verdicts(found: Mapping[str, Any]) -> "list[RenderableType]":
    """Shares of right ones by how pairs were drawn, and verdicts on the suite's own labels."""
    from rich.text import Text

    from gemma4vec.cli.output import table

    parts = found["precision"]
    rows = [
        [words, one["read"], one["right"], f"{one['precision']:.0%}", f"{one['low']:.0%} to {one['high']:.0%}"]
        for name, words in DRAWN.items()
        if (one := parts[name])["read"]
    ]
    title = "Flagged documents that are right, by how they were drawn"
    shown: list[RenderableType] = []
    if rows:
        shown.append(table(["read from", "read", "right", "share", "95% interval"], rows, title=title))
    skipped = parts["random"]["skipped"]
    if parts["random"]["read"] and skipped:
        shown.append(
            Text(
                f"{skipped} pairs of the random sample have no verdict: the lower limit takes them as wrong, the upper "
                "one as right."
            )
        )
    if not parts["random"]["read"]:
        unknown = "no verdict yet" if not rows else "none was read in random order"
        shown.append(Text(f"the share of right ones among all flags is not known: {unknown} (--order random)"))
    if found["readers"]:
        readers = ", ".join(f"{name or 'nobody named'} ({count})" for name, count in found["readers"].items())
        shown.append(Text(f"verdicts by {readers}"))
    if found["labels_contradicted"] or found["labels_confirmed"]:
        kept = found["labels_kept"]
        left = f"; {kept} queries have no right document left and keep the suite's labels" if kept else ""
        shown.append(
            Text(
                f"labels of the suite: {found['labels_contradicted']} contradicted, {found['labels_confirmed']} "
                f"confirmed{left}"
            )
        )
    return shown


def _scores(found: Mapping[str, Any]) -> "Table":
    """Each model by the suite, with the verdicts, and where the flags without one could take it."""
    from gemma4vec.cli.output import table

    columns = {"by the suite": "suite"}
    if found["judged"]:
        columns["with verdicts"] = "with_verdicts"
    if found["labels_contradicted"]:
        columns["also against it"] = "with_contradictions"
    rows = [
        [
            one["model"],
            *(f"{one[key]:.3f}" for key in columns.values()),
            *(f"{one['if_flagged'][key]:.3f}" for key in ("all", "low", "high")),
        ]
        for one in found["scores"]
    ]
    title = f"{found['metric']} of the open half"
    return table(["model", *columns, "flags right", "least", "most"], rows, title=title)
