"""`gemma4vec eval MODEL --suite X`: score a model on suites of any kind."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemma4vec.data.suites.kinds import Role
from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.evaluation.scoring.ranking import Ranker
    from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

DTYPES = ("auto", "fp32", "bf16")


def evaluate_command(
    model: Annotated[
        str, typer.Argument(help="bm25, a run folder or id, a sentence-transformers folder, a hub id, or bundled:NAME.")
    ],
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            help="A name (nanobeir, nanobeir-compact, germandpr, germansts, pycode, mteb:TASK), a folder in BEIR "
            "layout, a YAML of several, sentence pairs (.tsv), rows (.jsonl, loss:FILE); may be given several times.",
            metavar="X",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Results go to OUT/<suite>.", metavar="DIR", show_default=False)
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto (what is fast here), fp32 or bf16.")] = "auto",
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", help="Cut texts at this many tokens instead of the model's limit.", min=1),
    ] = None,
    checkpoints: Annotated[
        bool,
        typer.Option(
            "--checkpoints",
            help="Evaluate every checkpoint that the run kept (without --suite: on its dev suite); names the best.",
        ),
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="With --checkpoints: beside a running training, at low priority, as they appear. Stopped, the same "
            "command goes on.",
        ),
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Encode every text anew instead of taking known vectors from disk.")
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help="One more of retrieval, such as ndcg_binary@10 or recall@10; repeatable.", metavar="M"
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option("--role", help="dev or final, for suites that do not say so themselves.", show_default=False),
    ] = None,
    mirror: Annotated[
        Path | None,
        typer.Option("--mirror", help="Folder with copies of hub data sets as OWNER/NAME.", metavar="DIR"),
    ] = None,
    look_again: Annotated[
        str,
        typer.Option("--look-again", help="Why a final suite is opened once more; stored.", metavar="WORDS"),
    ] = "",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap interval.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Evaluate a model on suites: scores with 95% intervals, each kind in a table of its own."""
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype}: use one of {', '.join(DTYPES)}")
    chosen: Role | None = "dev" if role == "dev" else "final" if role == "final" else None
    if role is not None and chosen is None:
        raise InputError(f"--role {role}: use dev or final")
    if not suite and not checkpoints:
        raise InputError("--suite: say what to evaluate on, such as a folder in BEIR's layout (gemma4vec eval --help)")
    if follow and not checkpoints:
        raise InputError("--follow goes with --checkpoints: it evaluates what a training keeps, as it appears")
    if follow:
        from gemma4vec.machine.priority import lower_priority

        lower_priority()  # before libraries start threads, which inherit it
    from gemma4vec.api.scoring import open_scorer, open_suites, run_of_model, score_model
    from gemma4vec.cli.eval.eval_table import result_row, result_tables
    from gemma4vec.cli.output import emit
    from gemma4vec.evaluation.scoring.mteb_suite import MtebSuite
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import named_run

    suites = open_suites(suite or [], chosen, mirror)
    run = run_of_model(model)
    if checkpoints:
        if out is not None or max_tokens is not None or dtype != "auto" or metric:
            raise InputError(
                "--checkpoints evaluates as the run was trained, by the suite's own metric; leave out --out, "
                "--max-tokens, --dtype, --metric"
            )
        from gemma4vec.cli.eval.checkpoints import evaluate_checkpoints

        own = [loaded for loaded in suites if not isinstance(loaded, MtebSuite)]
        if len(own) < len(suites):
            raise InputError("--checkpoints goes with suites of ours, not with tasks of mteb; leave mteb:TASK out")
        evaluate_checkpoints(run, own, cached=not no_cache, look_again=look_again, as_json=as_json, follow=follow)
        return
    loaded_model = open_scorer(model, dtype, max_tokens, cached=not no_cache)
    found = score_model(
        loaded_model,
        suites,
        run=run,
        is_run=named_run(model, home()) is not None,
        out=out,
        metrics=metric or [],
        look_again=look_again,
    )
    rows = [result_row(one.result, one.folder, seed) for one in found]
    _say_what_was_known(loaded_model)
    emit(as_json, rows if len(rows) > 1 else rows[0], lambda _: result_tables(rows))


def _say_what_was_known(model: "TextEmbedder | Ranker") -> None:
    """Seconds of an evaluation mean little where vectors came from disk; so it is said."""

    found, computed = getattr(model, "found", 0), getattr(model, "computed", 0)
    if found:
        logger.info(f"vectors: {found:,} were known, {computed:,} computed (--no-cache computes all)")
