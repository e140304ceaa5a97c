"""`gemma4vec inspect MODEL --suite X` and `gemma4vec inspect confirm SLICE`; the group's other commands are beside."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gemma4vec.cli.inspection.labels import judge_command, labels_command
from gemma4vec.cli.inspection.lists import explain_command, flips_command, similar_command
from gemma4vec.cli.inspection.opened import (
    BM25,
    InspectionFolder,
    SliceName,
    check_model,
    open_subject,
    suite_of_results,
)
from gemma4vec.cli.inspection.remedy import remedy_command, verify_command

logger = logging.getLogger(__name__)


class ModelOrCommand(TyperGroup):
    """`inspect confirm` is a command; any other first word begins the options of `inspect MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the hidden command in front of a model, which may have that name too."""
        if args and (args[0] not in self.commands or self.commands[args[0]].hidden):
            args = ["model", *args]
        found: list[str] = super().parse_args(ctx, args)
        return found


app = typer.Typer(
    cls=ModelOrCommand,
    no_args_is_help=True,
    help="Look for failure structure: `inspect MODEL --suite DEV`; confirm a slice, find a remedy, verify it.",
)


# `gemma4vec inspect --help` is the command below with its options; this line behind them names the others.
FURTHER = (
    "Further commands, each with --help: `inspect confirm`, `similar`, `flips`, `explain`, `labels`, `judge`, "
    "`remedy`, `verify`."
)


@app.command("model", hidden=True, epilog=FURTHER)
def inspect_command(
    model: Annotated[
        str,
        typer.Argument(help="bm25, a run folder, a run id, a sentence-transformers folder, a hub id or bundled:NAME."),
    ],
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            help="Dev suite for retrieval: a name or a folder; default: the one that the run was evaluated on.",
            metavar="DEV",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="One task of a suite of several.", metavar="NAME", show_default=False)
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="Another model for the paired view; bm25 by default, or none.", metavar="MODEL"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write; default: RUN/inspect/<suite>.", metavar="DIR", show_default=False),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page.", metavar="PAGE", show_default=False)
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto (the fastest here), fp32 or bf16.")] = "auto",
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", help="Cut texts at this many tokens; default: the model's limit.", min=1),
    ] = None,
    mirror: Annotated[
        Path | None, typer.Option("--mirror", help="Folder with copies of hub data sets, as OWNER/NAME.", metavar="DIR")
    ] = None,
    permutations: Annotated[
        int, typer.Option("--permutations", help="Random deals behind each p.", min=100, max=1_000_000)
    ] = 2000,
    probes: Annotated[
        str | None,
        typer.Option(
            "--probes",
            help="Counterfactual texts: all, or some of truncation, position, length, literal, negation, numbers, "
            "entities, prompts, limit.",
            metavar="NAMES",
            show_default=False,
        ),
    ] = None,
    spend: Annotated[
        str | None,
        typer.Option(
            "--spend",
            help="Make a final suite a dev suite for good, with this reason.",
            metavar="WHY",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also score each layer.")] = False,
    clusters: Annotated[bool, typer.Option("--clusters", help="Also group the queries by topic.")] = False,
    mapped: Annotated[
        bool, typer.Option("--map", help="Also map documents and queries: t-SNE if openTSNE is installed, else PCA.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of permutations and samples.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Inspect a model on a dev suite: slices on which it is worse, kinds of failure, geometry, and advice.

    Half of the queries are sealed until `gemma4vec inspect confirm SLICE` opens them for one slice.
    """
    from gemma4vec.cli.inspection.inspect_screen import screen
    from gemma4vec.cli.output import emit
    from gemma4vec.evaluation.scoring.open_any_suite import open_retrieval_suite
    from gemma4vec.files import home
    from gemma4vec.inspection.inspect import inspect
    from gemma4vec.inspection.inspected import Wanted
    from gemma4vec.inspection.inspection_files import CLUSTERS, LAYERS, MAP, PROBES, load_extra, load_inspection
    from gemma4vec.inspection.probes.run_probes import chosen_probes
    from gemma4vec.ledger.run_folder import named_run, slug
    from gemma4vec.ledger.suite_access import check_choice
    from gemma4vec.ledger.suite_access import spend as make_dev
    from gemma4vec.machine.terminal import bars_by_stage

    wanted = Wanted(() if probes is None else tuple(chosen_probes(probes)), layers, clusters, mapped)
    known = {"spec": suite} if suite is not None else suite_of_results(model)
    opened_as = {**known, **({"task": task} if task else {}), **({"mirror": str(mirror)} if mirror else {})}
    loaded = open_retrieval_suite(opened_as)
    if spend is not None:
        make_dev(loaded, spend)
    check_choice("inspect shows single queries", loaded)  # before a model is loaded
    how = {"dtype": None if dtype == "auto" else dtype, "max_tokens": max_tokens}
    other = against or (None if model == BM25 else BM25)
    for one in (model, *([] if other in (None, "none") else [other])):
        check_model(one)
    subject = open_subject({"spec": model, **how})
    reference = None if other in (None, "none") else open_subject({"spec": other, "dtype": how["dtype"]})
    if reference is not None and reference.model.fingerprint == subject.model.fingerprint:
        from gemma4vec.errors import InputError

        raise InputError(f"--against {other} is the inspected model itself; name another one, or none")
    run = named_run(model, home())
    folder = out or (run.path / "inspect" if run is not None else home() / "inspect" / slug(subject.model.name))
    folder = folder if out is not None else folder / loaded.name
    with bars_by_stage(loaded.name) as report:
        inspect(
            subject,
            loaded,
            folder,
            against=reference,
            opened_as=opened_as,
            permutations=permutations,
            seed=seed,
            wanted=wanted,
            progress=report,
        )
    about, slices = load_inspection(folder)
    if html is not None:
        from gemma4vec.report.inspect_page import write_inspect_page

        logger.info(f"page: {write_inspect_page(html, folder, loaded)}")
    files = {"probes": PROBES, "layers": LAYERS, "clusters": CLUSTERS, "map": MAP}
    extras = {name: load_extra(folder, file) for name, file in files.items()}
    emit(as_json, {"folder": str(folder), **about, "slices": slices, **extras}, screen)


@app.command("confirm")
def confirm_command(
    name: SliceName,
    folder: InspectionFolder = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the permutations.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Open the sealed half for one slice, once: confirmed or refuted, with the smallest gap that it can show."""
    from gemma4vec.cli.output import emit
    from gemma4vec.evaluation.scoring.open_any_suite import open_retrieval_suite
    from gemma4vec.inspection.confirm import confirm, find_slice

    found = confirm(name, find_slice(name, folder), open_subject, open_retrieval_suite, seed=seed)
    emit(as_json, found.as_json(), lambda _: found.sentence())


app.command("remedy")(remedy_command)
app.command("verify")(verify_command)
app.command("flips")(flips_command)
app.command("similar")(similar_command)
app.command("explain")(explain_command)
app.command("labels")(labels_command)
app.command("judge")(judge_command)
