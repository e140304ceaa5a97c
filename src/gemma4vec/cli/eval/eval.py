"""`gemma4vec eval MODEL --suite X`: score a model on suites of any kind."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemma4vec.data.suites.kinds import Role
from gemma4vec.errors import InputError
from gemma4vec.machine.terminal import bars_by_stage

if TYPE_CHECKING:
    from gemma4vec.evaluation.scoring.ranking import Ranker
    from gemma4vec.ledger.run_folder import RunFolder
    from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

DTYPES = ("auto", "fp32", "bf16")


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
    dtype: Annotated[str, typer.Option("--dtype", help="auto (the fastest here), fp32 or bf16.")] = "auto",
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
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype}: use one of {', '.join(DTYPES)}")
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
        from gemma4vec.machine.priority import lower_priority

        lower_priority()  # before libraries start threads, which inherit the priority
    from gemma4vec.cli.output import emit
    from gemma4vec.evaluation.scoring.mteb_suite import MtebSuite
    from gemma4vec.evaluation.scoring.open_any_suite import open_any_suite

    suites = [open_any_suite(spec, chosen, mirror) for spec in suite or []]
    names = [loaded.name for loaded in suites]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two suites are named '{name}'; rename one folder or set 'name' in its suite.yaml")

    from gemma4vec.cli.eval.eval_table import result_row, result_tables
    from gemma4vec.evaluation.scoring.evaluate import evaluate
    from gemma4vec.evaluation.scoring.guards import check_allowed, find_owner
    from gemma4vec.evaluation.scoring.metrics import DEFAULT_METRICS

    run = _owner(model)
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
        evaluate_checkpoints(run, own, cached=not no_cache, look_again=look_again, as_json=as_json, follow=follow)
        return
    loaded_model = _load_model(model, dtype, max_tokens, cached=not no_cache)
    # Check all suites before scoring the first: the last one may come hours later.
    owner = find_owner(loaded_model, run=run)
    check_allowed(loaded_model, suites, owner=owner, look_again=look_again)
    rows = []
    for loaded in suites:
        folder = _result_folder(model, loaded_model, loaded.name, out)
        with bars_by_stage(loaded.name) as report:
            result = evaluate(
                loaded_model,
                loaded,
                folder,
                metrics=[*DEFAULT_METRICS, *(metric or [])],
                progress=report,
                run=run,
                look_again=look_again,
            )
        rows.append(result_row(result, folder, seed))
    _say_what_was_known(loaded_model)
    emit(as_json, rows if len(rows) > 1 else rows[0], lambda _: result_tables(rows))


def _owner(spec: str) -> "RunFolder | None":
    """The run of a model, also if `spec` names the run's model folder."""
    from gemma4vec.ledger.records import find_enclosing_run
    from gemma4vec.ledger.run_folder import RunFolder

    found = _run_of(spec)
    if found is not None:
        return RunFolder.open(found)
    return find_enclosing_run(Path(spec)) if Path(spec).is_dir() else None


def _say_what_was_known(model: "TextEmbedder | Ranker") -> None:
    """Report cached vectors: they make the evaluation's seconds meaningless."""

    found, computed = getattr(model, "found", 0), getattr(model, "computed", 0)
    if found:
        logger.info(f"vectors: {found:,} from the cache, {computed:,} computed (--no-cache computes all)")


def _load_model(spec: str, dtype: str, max_tokens: int | None, *, cached: bool) -> "TextEmbedder | Ranker":
    """Load the model that `spec` names."""
    if spec == "bm25":
        from gemma4vec.evaluation.scoring.bm25_model import Bm25Model

        if max_tokens is not None:
            raise InputError("--max-tokens does not apply to bm25, which reads whole texts; leave it out")
        return Bm25Model()
    from gemma4vec.model.inference.cached_embedder import CachedEmbedder
    from gemma4vec.model.inference.embedder import Embedder

    run = _run_of(spec)
    found = Embedder.load(str(run) if run else spec, dtype=None if dtype == "auto" else dtype, max_tokens=max_tokens)
    return CachedEmbedder(found) if cached else found


def _run_of(spec: str) -> Path | None:
    """The run folder at `spec`, or the run below HOME with that id; None for other models."""
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import MANIFEST, find_run

    if Path(spec).exists():
        return Path(spec) if (Path(spec) / MANIFEST).is_file() else None
    if ":" in spec or "/" in spec:
        return None
    try:
        return find_run(spec, home()).path
    except InputError:
        return None  # not a run: the embedder's error lists the other forms


def _result_folder(spec: str, model: "TextEmbedder | Ranker", suite: str, out: Path | None) -> Path:
    """The result's folder: OUT/<suite>, RUN/evals/trained/<suite> or HOME/evals/<model>/<suite>.

    Results of a model with other settings (dtype, limits, weights) are never overwritten.
    """
    from gemma4vec.evaluation.comparison.find_results import TRAINED, free_folder
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import slug

    if out is not None:
        return out / suite
    run = _run_of(spec)
    if run is not None:
        return free_folder(run / "evals" / TRAINED, suite, model, replaces_other_weights=True)
    return free_folder(home() / "evals" / slug(model.name), suite, model)
