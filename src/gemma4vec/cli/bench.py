"""`gemma4vec bench RECIPE`: training speed on this machine, the hardware limit, and settings that may be faster."""

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer


def bench_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML).", metavar="RECIPE", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the recipe, such as stages.0.layout.kind=padded.", metavar="KEY=VALUE"),
    ] = None,
    stage: Annotated[int, typer.Option("--stage", help="Stage to measure, counted from 0.", min=0)] = 0,
    seconds: Annotated[float, typer.Option("--seconds", help="Seconds to measure after a warm-up.", min=0)] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Train a recipe for half a minute and show where the time goes. Nothing is saved; see docs/guides/speed.md."""
    from gemma4vec.cli.output import emit
    from gemma4vec.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    from gemma4vec.training.bench.benchmark import bench

    emit(as_json, bench(loaded, stage, seconds), as_text)


def as_text(found: dict[str, Any]) -> str:
    """One screen."""
    speed, roof, compiled = found["tokens_per_second"], found["roofline"], "compiled" if found["compiled"] else "eager"
    lines = [
        f"bench of {found['recipe']}, stage {found['stage']}: {found['steps']} steps on {found['device']} in "
        f"{found['dtype']}, layers {compiled}",
        *_why(found),
        _line(
            "speed",
            f"{speed['median']:,.0f} real tokens/s [{speed['least']:,.0f} to {speed['most']:,.0f}], "
            f"{found['seconds_per_step']:.2f} s a step of {found['tokens_per_step']:,.0f} tokens",
        ),
        _line(
            "first step", f"{found['first_step_seconds']:.1f} s, after {found['prepare_seconds']:.1f} s of preparation"
        ),
        _line("padding", f"{found['padding_share']:.1%} of the computed tokens"),
        _line("memory", f"{found['peak_memory_gb']:.2f} GB at the peak"),
        _line(
            "machine",
            f"{roof['matrix_products_tflops']:.2f} TFLOP/s in matrix products, "
            f"{roof['memory_gb_per_second']:,.0f} GB/s",
        ),
        _line(
            "roofline",
            f"{roof['share']:.0%}: a step needs {roof['needed_tflop_per_step']:.3f} TFLOP, "
            f"{roof['floor_seconds']:.2f} s at that rate",
        ),
        _line("time", ", ".join(f"{part} {share:.0%}" for part, share in found["time"].items())),
        _line("", f"the optimizer's update takes {found['update_share']:.0%}"),
    ]
    if not found["advice"]:
        return "\n".join([*lines, _line("faster", "no setting promises more speed")])
    lines.append(_line("faster", "estimated, not measured; to measure one, add it after the recipe:"))
    for one in found["advice"]:
        factor = f"about {one['factor']:.2f}x" if one["factor"] else "not estimated"
        lines.append(f"    {one['change']:<41} {factor}")
        lines.append(f"      {one['why']}")
    return "\n".join(lines)


def _why(found: dict[str, Any]) -> list[str]:
    """The reasons for device, dtype and uncompiled layers."""
    reasons = {"device": found["device_reason"], "dtype": found["dtype_reason"]}
    if not found["compiled"]:
        reasons["layers"] = found["compile_reason"]
    lines = []
    for label, reason in reasons.items():
        wrapped = textwrap.wrap(reason, 104)
        lines += [_line("" if i else label, line) for i, line in enumerate(wrapped)]
    return lines


def _line(label: str, text: str) -> str:
    return f"  {label:<12}{text}"
