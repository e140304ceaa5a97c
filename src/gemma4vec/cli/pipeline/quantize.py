"""`gemma4vec quantize MODEL --scheme S --out DIR`: a model on a quantization grid, after training or trained for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.pipeline.quantize.quantize_model import QuantizedModel


def quantize_command(
    model: Annotated[str, typer.Argument(help="Run folder, run id, latest, or a folder that gemma4vec saved.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="With --train: changes to the recipe, such as stages.0.budget.steps=50.",
            metavar="KEY=VALUE",
            show_default=False,
        ),
    ] = None,
    scheme: Annotated[
        str,
        typer.Option("--scheme", help="q8_0, q4_0 (GGUF's), or mixed (int8 attention, the rest int4, a scale a row)."),
    ] = "q4_0",
    out: Annotated[
        Path | None, typer.Option("--out", help="The new model's folder.", metavar="DIR", show_default=False)
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            "--train",
            help="Train for the grid by this recipe, starting from MODEL; one is embeddinggemma/quantize.",
            metavar="RECIPE",
        ),
    ] = None,
    dev: Annotated[
        list[str] | None,
        typer.Option("--dev", help="Dev suite to score before and after. Repeatable.", metavar="SUITE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Quantize a trained model, by rounding its weights or by training them for it.

    The result is an ordinary model folder. Its weights are read back and
    compared with those that were scored; if they differ, nothing is written.
    """
    if out is None:
        raise InputError("--out DIR: name the folder of the new model")
    if overrides and train is None:
        raise InputError("KEY=VALUE changes the recipe of --train RECIPE, which is not given")
    from gemma4vec.cli.output import emit
    from gemma4vec.model.adapters.schemes import check_scheme

    check_scheme(scheme)
    if train is None:
        from gemma4vec.pipeline.quantize.quantize_model import quantize_model

        made = quantize_model(model, scheme, out, dev=dev or [])
    else:
        from gemma4vec.pipeline.quantize.train_quantized import train_quantized

        made = train_quantized(model, scheme, train, out, dev=dev or [], overrides=overrides or [])
    emit(as_json, made.as_json(), lambda _: _show(made))


def _show(made: "QuantizedModel") -> str:
    how = "trained for" if made.trained else "rounded to"
    change = "" if made.error is None else f", changed by {made.error:.1%} of their norm"
    lines = [
        f"{made.source}, {how} {made.scheme}: {made.matrices} matrices{change}; quantized they take "
        f"{made.size_bytes / 1e6:,.1f} MB"
    ]
    for found in made.comparisons:
        interval = found.interval
        lines.append(
            f"{found.suite}, {found.metric}: {found.mean_a:.4f} quantized, {found.mean_b:.4f} before; difference "
            f"{interval.mean:+.4f} (95% {interval.low:+.4f} to {interval.high:+.4f}): {found.sentence()}"
        )
    if made.run is not None:
        lines.append(f"run: {made.run}")
    lines.append(f"model: {made.folder}")
    if made.scheme != "mixed":
        lines.append(f"next: gemma4vec export {made.folder} --to gguf --dtype {made.scheme}")
    return "\n".join(lines)
