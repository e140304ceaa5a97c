"""`gemma4vec eval MODEL --suite X`: score a model on suites of any kind."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemma4vec.cli.dtype import DtypeOption, read_dtype
from gemma4vec.data.suites.kinds import Role
from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.evaluation.scoring.ranking import Ranker
    from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)


def evaluate_command(
    model: Annotated[
        str,
        typer.Argument(help="bm25, a run folder, a run id, a sentence-transformers folder, a hub id or bundled:NAME."),
    ],
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            help="Suite: a name (nanobeir, nanobeir-compact, germandpr, germansts, pycode, mteb:TASK), a folder in "
            "BEIR format, a YAML list, sentence pairs (.tsv) or rows (.jsonl, loss:FILE). Repeatable.",
            metavar="X",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write results to DIR/<suite>.", metavar="DIR", show_default=False)
    ] = None,
    dtype: DtypeOption = "auto",
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", help="Cut texts at this many tokens; default: the model's limit.", min=1),
    ] = None,
    checkpoints: Annotated[
        bool,
        typer.Option(
            "--checkpoints",
            help="Evaluate every checkpoint of the run and name the best; default suite: the run's dev suite.",
        ),
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="With --checkpoints: wait for checkpoints of a running training, at low priority. After an "
            "interruption, the same command continues.",
        ),
    ] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Encode every text; do not use cached vectors.")] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help="Further retrieval metric, such as ndcg_binary@10 or recall@10; repeatable.", metavar="M"
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option("--role", help="dev or final, for suites that do not declare a role.", show_default=False),
    ] = None,
    mirror: Annotated[
        Path | None,
        typer.Option("--mirror", help="Folder with copies of hub data sets, as OWNER/NAME.", metavar="DIR"),
    ] = None,
    look_again: Annotated[
        str,
        typer.Option("--look-again", help="Reason for another look at a final suite; recorded.", metavar="WORDS"),
    ] = "",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap interval.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Evaluate a model on suites: scores with 95% intervals, one table for each kind of suite."""
    wanted = read_dtype(dtype)
    chosen: Role | None = "dev" if role == "dev" else "final" if role == "final" else None
    if role is not None and chosen is None:
        raise InputError(f"--role {role}: use dev or final")
    if not suite and not checkpoints:
        raise InputError(
            "--suite is missing: name a suite, such as nanobeir or a folder in BEIR format (see gemma4vec eval --help)"
        )
    if follow and not checkpoints:
        raise InputError("--follow needs --checkpoints: it evaluates checkpoints of a running training")
    if follow:
        from gemma4vec.machine.processes.priority import lower_priority

        lower_priority()  # before libraries start threads, which inherit the priority
    from gemma4vec.api.scoring import open_scorer, open_suites, run_of_model, score_model
    from gemma4vec.cli.eval.eval_table import result_row, result_tables
    from gemma4vec.cli.output import emit
    from gemma4vec.evaluation.scoring.mteb_suite import MtebSuite
    from gemma4vec.evaluation.scoring.open_any_suite import opened_as
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import named_run

    suites = open_suites(suite or [], chosen, mirror)
    opened = [opened_as(one, mirror=mirror) for one in suite or []]
    run = run_of_model(model)
    if checkpoints:
        if out is not None or max_tokens is not None or dtype != "auto" or metric:
            raise InputError(
                "--checkpoints uses the run's settings and the suite's main metric; leave out --out, "
                "--max-tokens, --dtype, --metric"
            )
        from gemma4vec.cli.eval.checkpoints import evaluate_checkpoints

        own = [loaded for loaded in suites if not isinstance(loaded, MtebSuite)]
        if len(own) < len(suites):
            raise InputError("--checkpoints does not support mteb tasks; leave out mteb:TASK")
        how = {loaded.name: one for loaded, one in zip(own, opened, strict=True)}
        evaluate_checkpoints(run, own, how, cached=not no_cache, look_again=look_again, as_json=as_json, follow=follow)
        return
    loaded_model = open_scorer(model, wanted, max_tokens, cached=not no_cache)
    found = score_model(
        loaded_model,
        suites,
        run=run,
        is_run=named_run(model, home()) is not None,
        out=out,
        metrics=metric or [],
        look_again=look_again,
        opened=opened,
    )
    rows = [result_row(one.result, one.folder, seed) for one in found]
    _say_what_was_known(loaded_model)
    emit(as_json, rows if len(rows) > 1 else rows[0], lambda _: result_tables(rows))


def _say_what_was_known(model: "TextEmbedder | Ranker") -> None:
    """Report cached vectors: they make the evaluation's seconds meaningless."""

    found, computed = getattr(model, "found", 0), getattr(model, "computed", 0)
    if found:
        logger.info(f"vectors: {found:,} from the cache, {computed:,} computed (--no-cache computes all)")
