"""`gemma4vec bench RECIPE`: how fast a recipe trains on this machine, how near its limit, and what would help."""

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer


def bench_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML).", metavar="RECIPE", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to it, such as stages.0.layout.kind=padded.", metavar="KEY=VALUE"),
    ] = None,
    stage: Annotated[int, typer.Option("--stage", help="Which stage, counted from 0.", min=0)] = 0,
    seconds: Annotated[float, typer.Option("--seconds", help="How long to measure, after a warm-up.", min=0)] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Train a recipe for half a minute and say where the time goes. Nothing is kept; see docs/guides/speed.md."""
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
            "first step", f"{found['first_step_seconds']:.1f} s, after {found['prepare_seconds']:.1f} s of preparing"
        ),
        _line("padding", f"{found['padding_share']:.1%} of what is computed"),
        _line("memory", f"{found['peak_memory_gb']:.2f} GB at the peak"),
        _line(
            "machine",
            f"{roof['matrix_products_tflops']:.2f} TFLOP/s in products, {roof['memory_gb_per_second']:,.0f} GB/s",
        ),
        _line(
            "roofline",
            f"{roof['share']:.0%}: {roof['needed_tflop_per_step']:.3f} TFLOP a step are needed, "
            f"{roof['floor_seconds']:.2f} s at that rate",
        ),
        _line("time", ", ".join(f"{part} {share:.0%}" for part, share in found["time"].items())),
        _line("", f"the optimizer's update is {found['update_share']:.0%} of it"),
    ]
    if not found["advice"]:
        return "\n".join([*lines, _line("faster", "no switch of the recipe promises more")])
    lines.append(_line("faster", "by count, not measured; give one behind the recipe to measure it:"))
    for one in found["advice"]:
        factor = f"about {one['factor']:.2f} times" if one["factor"] else "to be measured"
        lines.append(f"    {one['change']:<41} {factor}")
        lines.append(f"      {one['why']}")
    return "\n".join(lines)


def _why(found: dict[str, Any]) -> list[str]:
    """Why device, dtype and layers are what they are, as far as a person might wonder."""
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
