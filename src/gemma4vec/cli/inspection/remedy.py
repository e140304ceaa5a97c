"""`gemma4vec inspect remedy SLICE` and `gemma4vec inspect verify RUN --against MODEL`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.cli.inspection.opened import BM25, InspectionFolder, SliceName, open_subject
from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gemma4vec.recipe.schema import Recipe


def remedy_command(
    name: SliceName,
    folder: InspectionFolder = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Recipe to change; default: that of the inspected run.", metavar="RECIPE"),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", help="Rows that may be added: a file, a recipe, a run; repeatable.", metavar="ROWS"),
    ] = None,
    stage: Annotated[
        int | None, typer.Option("--stage", help="Number of the contrast to change; default: the last.", min=0)
    ] = None,
    times: Annotated[
        int, typer.Option("--times", help="How often a pass reads a re-weighted row.", min=2, max=100)
    ] = 3,
    effect: Annotated[
        float | None,
        typer.Option("--effect", help="Smallest gain to claim; default: half of the gap.", show_default=False),
    ] = None,
    margin: Annotated[float, typer.Option("--margin", help="Largest loss outside the slice that is accepted.")] = 0.01,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write; default: HOME/remedies/SLICE.", metavar="DIR", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the control arms' random rows.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Write recipes that may help a slice: one change each, a claim, the share of matching rows, and a control."""
    from gemma4vec.cli.output import emit
    from gemma4vec.data.loading.resolve_names import resolve_sources
    from gemma4vec.evaluation.scoring.open_any_suite import open_retrieval_suite
    from gemma4vec.files import home
    from gemma4vec.inspection.confirm import find_slice
    from gemma4vec.inspection.inspection_files import load_inspection
    from gemma4vec.inspection.remedy.write_remedies import write_remedies
    from gemma4vec.ledger.run_folder import slug

    inspected = find_slice(name, folder)
    spec = recipe or str(load_inspection(inspected)[0]["model"]["open"].get("spec"))
    opened = _recipe(spec, given=recipe is not None)
    found = write_remedies(
        name,
        inspected,
        opened,
        out or home() / "remedies" / slug(name),
        open_subject,
        open_retrieval_suite,
        sources=resolve_sources(source or []),
        stage=stage,
        times=times,
        effect=effect,
        margin=margin,
        seed=seed,
    )
    emit(as_json, found, _render)


def verify_command(
    run: Annotated[
        list[str], typer.Argument(help="Runs trained with the claim: seeds of one recipe.", metavar="RUN...")
    ],
    against: Annotated[
        list[str],
        typer.Option("--against", help="The model before the remedy; repeatable for seeds.", metavar="MODEL"),
    ],
    control: Annotated[
        list[str] | None,
        typer.Option("--control", help="Runs of the control arm; repeatable for seeds.", metavar="RUN"),
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto (the fastest here), fp32 or bf16.")] = "auto",
    mirror: Annotated[
        Path | None, typer.Option("--mirror", help="Folder with copies of hub data sets, as OWNER/NAME.", metavar="DIR")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random signs.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Ask the sealed half, once, whether a remedy did what its claim says; the decision goes into the ledger."""
    from gemma4vec.cli.output import emit
    from gemma4vec.evaluation.scoring.open_any_suite import open_retrieval_suite
    from gemma4vec.files import home
    from gemma4vec.inspection.remedy.claims import claim_of
    from gemma4vec.inspection.remedy.verify import verify
    from gemma4vec.ledger.run_folder import named_run
    from gemma4vec.machine.terminal import bars_by_stage

    first = named_run(run[0], home())
    if first is None:
        raise InputError(f"{run[0]} is no run, so it has no claim; name a run that was trained with one")
    claim = claim_of(first)
    how = {"spec": claim.suite, "task": claim.task, "mirror": None if mirror is None else str(mirror)}
    suite = open_retrieval_suite(how)
    typed = None if dtype == "auto" else dtype
    sides = [[open_subject({"spec": one, "dtype": typed}) for one in side] for side in (run, against, control or [])]
    with bars_by_stage(suite.name) as report:
        found = verify(sides[0], sides[1], suite, control=sides[2], progress=report, seed=seed)
    emit(as_json, found.as_json(), lambda _: "\n".join(found.lines()))


def _recipe(spec: str, *, given: bool) -> "Recipe":
    """The recipe to change: of a run, a file, or a shipped one."""
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import named_run
    from gemma4vec.ledger.run_recipe import read_recipe
    from gemma4vec.recipe.load import load_recipe

    run = None if spec == BM25 else named_run(spec, home())
    if run is not None:
        return read_recipe(run)
    if not given:
        raise InputError(f"{spec} is no run, so its recipe is unknown; name the recipe to change with --recipe")
    return load_recipe(spec)


def _render(found: Mapping[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    claim = found["claim"]
    rows = [
        [
            one["name"],
            "-" if one["share"] is None else f"{one['matching']:,} of {one['rows']:,} ({one['share']:.1%})",
            one["words"] if not one["why_not"] else f"no: {one['why_not']}",
        ]
        for one in found["remedies"]
    ]
    gain = f"{claim['metric']} gains {claim['smallest_effect']:g}"
    shows = "no gain at all" if found["shows"] is None else f"gains from about {found['shows']:.3f}"
    return Group(
        Text(f"{found['rule']}: {found['words']}"),
        Text(f"claim: {gain}, to be changed with --effect before training; the sealed half shows {shows}"),
        Text(f"the spread behind that is of {found['spread_of']}"),
        table(["remedy", "matching rows", "what it does"], rows),
        *(
            Text(f"train {one['recipe']}, control {one['control_recipe']}")
            for one in found["remedies"]
            if one["recipe"]
        ),
        *(Text(note) for note in found["notes"]),
        Text("then: gemma4vec inspect verify RUN --against MODEL --control RUN"),
        Text(f"folder: {found['folder']}"),
    )
