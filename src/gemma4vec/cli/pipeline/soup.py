"""`gemma4vec soup RUN RUN ...`: average finished models that were trained from one start."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from rich.console import Group

    from gemma4vec.pipeline.soup.record import SoupRecord


def soup_command(
    models: Annotated[
        list[str], typer.Argument(help="Finished runs (folders or ids), or their model folders.", metavar="RUN RUN ...")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The new model's folder; default: a run of its own.", metavar="DIR", show_default=False
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="uniform (the plain mean), weights, greedy, or a method of mergekit's such as slerp, karcher, ties.",
        ),
    ] = "uniform",
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", help="One weight for each model, with sum 1; for --method weights.", metavar="W,W,..."
        ),
    ] = None,
    dev: Annotated[
        list[str] | None,
        typer.Option(
            "--dev",
            help="Dev suite to score on, as for eval --suite; greedy chooses by it. Repeatable.",
            metavar="SUITE",
        ),
    ] = None,
    start_weight: Annotated[
        float, typer.Option("--start-weight", help="Share of the common start in the result (WiSE-FT).", metavar="W")
    ] = 0.0,
    control: Annotated[
        bool,
        typer.Option(
            "--control",
            help="Also write DIR-control: one model, its change from the start shrunken as the soup's is.",
        ),
    ] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", help="Parameter of a method of mergekit's, such as t=0.3. Repeatable.", metavar="KEY=NUMBER"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Average finished models that were trained from one start into a new model folder."""
    given = None if weights is None else [_number("--weights", text) for text in weights.split(",")]
    parameters = dict(map(_parameter, parameter or []))
    if method == "greedy" and not dev:
        raise InputError("--method greedy chooses by scores; name a dev suite: --dev SUITE")
    from gemma4vec.cli.output import emit
    from gemma4vec.pipeline.soup.make_soup import make_soup

    record = make_soup(
        models,
        out,
        method=method,
        weights=given,
        dev=dev or [],
        start_weight=start_weight,
        control=control,
        parameters=parameters,
    )
    emit(as_json, record.as_json(), lambda _: _show(record))


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{option}: '{text}' is no number") from None


def _parameter(text: str) -> tuple[str, float]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InputError(f"--parameter {text}: write KEY=NUMBER, such as t=0.5")
    return key, _number(f"--parameter {key}", value)


def _show(record: "SoupRecord") -> "Group":
    """Tables of the ingredients and of the cosines of their changes, then what must be known about the result."""
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    suites = list(record.score.by_suite) if record.score is not None else []
    rows = [_row(name, one, suites) for name, one in zip(record.names, record.as_json()["ingredients"], strict=True)]
    json = record.as_json()
    if suites or record.norm is not None:
        rows.append(["the soup", None, record.norm, *((json["dev"] or {}).get(suite) for suite in suites)])
    if record.control is not None:
        one = record.control.as_json()
        rows.append(["its control", None, record.control.norm, *((one["dev"] or {}).get(suite) for suite in suites)])
    parts: list[Any] = [table(["model", "weight", "norm of change", *suites], rows, f"Soup ({record.method})")]
    if record.deltas is not None and len(record.names) > 1:
        numbers = [str(number + 1) for number in range(len(record.names))]
        cosines = [
            [f"{n} {name}", *row] for n, name, row in zip(numbers, record.names, record.deltas.cosines, strict=True)
        ]
        parts.append(table(["cosine of changes", *numbers], cosines))
    return Group(*parts, *(Text(line) for line in _lines(record, suites)))


def _row(name: str, one: dict[str, Any], suites: list[str]) -> list[object]:
    return [name, one["weight"], one["norm"], *((one["dev"] or {}).get(suite) for suite in suites)]


def _lines(record: "SoupRecord", suites: list[str]) -> list[str]:
    lines = []
    if record.shrinkage is not None:
        lines.append(
            f"The soup's change from {record.start} has {record.shrinkage:.3f} of the mean norm of its ingredients' "
            "changes (1: they agree; 1/sqrt(N): they are orthogonal)."
        )
    if record.deltas is not None and record.deltas.left_out:
        lines.append(f"{record.deltas.left_out} tensors that the start lacks are not in norms and cosines.")
    if record.trials:
        tried = [
            f"{'kept' if trial.kept else 'left out'} {record.names[trial.added]} ({trial.score:.4f})"
            for trial in record.trials
        ]
        lines.append(f"Greedy: {'; '.join(tried)}.")
        looks = (len(record.names) + len(record.trials) - 1) * len(suites)
        lines.append(
            f"{looks} looks at {', '.join(suites)} chose this soup, so its score there is too good; judge it on other"
            " suites."
        )
    lines.append(f"folder: {record.folder}")
    if record.control is not None:
        lines.append(f"control: {record.control.folder}")
    lines.append(f"run: {record.run_id} (before a final suite: gemma4vec runs freeze {record.run_id})")
    return lines
