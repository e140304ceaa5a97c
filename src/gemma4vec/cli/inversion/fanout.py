"""`gemma4vec fanout MODEL`: suggestions for a query, what they are worth on a suite, and rows to train on."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.cli.dtype import DtypeOption, read_dtype
from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.data.suites.retrieval import RetrievalSuite
    from gemma4vec.fanout.setting import Choices, Setting
    from gemma4vec.fanout.suggester import Suggester
    from gemma4vec.fanout.writers import LogWriter, Writer
    from gemma4vec.text.text_embedder import TextEmbedder
    from gemma4vec.ui.content.kept_results import Kind

logger = logging.getLogger(__name__)
TARGETS = ("prf", "gold", "text")


def fanout_command(
    model: Annotated[
        str, typer.Argument(help="A run folder, a run id, a sentence-transformers folder, a hub id or bundled:NAME.")
    ],
    suite: Annotated[
        str | None, typer.Option("--suite", help="Dev suite: its documents, queries and judgments.", metavar="DEV")
    ] = None,
    query: Annotated[str | None, typer.Option("--query", help="Walk from this query alone, and show it.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="With --query: walk to this text.", metavar="TEXT")] = None,
    decoder: Annotated[
        Path | None, typer.Option("--decoder", help="Decoder of MODEL, which writes the texts.", metavar="DIR")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log", help="Queries of a log: .txt or rows. Without --decoder they are the texts.", metavar="FILE"
        ),
    ] = None,
    paraphrase: Annotated[
        str | None,
        typer.Option("--paraphrase", help="Base model whose paraphrases stand in the table.", metavar="BASE"),
    ] = None,
    suggester: Annotated[
        Path | None,
        typer.Option(
            "--suggester",
            help="Trained suggester for the table, on queries that it never saw: its folder or run.",
            metavar="DIR",
        ),
    ] = None,
    target: Annotated[
        str, typer.Option("--target", help="Where walks go: prf (mean of the first hits), gold (judged), text (--to).")
    ] = "prf",
    n: Annotated[int, typer.Option("--n", help="Suggestions a query, at most.")] = 8,
    step_degrees: Annotated[float, typer.Option("--step-degrees", help="Length of a step.")] = 4.0,
    points: Annotated[int, typer.Option("--points", help="Points of a walk, at most.")] = 20,
    feedback: Annotated[int, typer.Option("--feedback", help="First hits whose mean is the target.")] = 3,
    weight: Annotated[float, typer.Option("--weight", help="Weight of the suggestions in the fused ranking.")] = 0.3,
    faithful: Annotated[
        float | None,
        typer.Option(
            "--faithful", help="Least cosine of a suggestion to its query. Default: fitted.", show_default=False
        ),
    ] = None,
    diverse: Annotated[float, typer.Option("--diverse", help="Weight of being unlike the others, 0 to 1.")] = 0.3,
    max_queries: Annotated[int | None, typer.Option("--max-queries", help="Sample of the suite's queries.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write training rows (.jsonl, .jsonl.gz).", metavar="FILE")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help="Write pairs that train a suggester (.jsonl, .jsonl.gz).", metavar="FILE"),
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option("--published", help="Write records: a query, its variants, their documents.", metavar="FILE"),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the table or the walk below HOME/walks, for gemma4vec ui.")
    ] = False,
    dtype: DtypeOption = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Seed of random directions and sampled texts.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Suggest other queries on the way from a query to a target, and measure them beside noise at the same angles.

    With --suite alone: a table of methods, each with the same number of suggestions. With --out, --pairs or
    --published: what the walks wrote.
    """
    from gemma4vec.fanout.fit_gate import with_gate
    from gemma4vec.fanout.keep import Gates
    from gemma4vec.fanout.setting import Choices

    if target not in TARGETS:
        raise InputError(f"--target {target}: use one of {', '.join(TARGETS)}")
    wanted = read_dtype(dtype)
    if (target == "text") != (to is not None) or (to is not None and query is None):
        raise InputError("--target text walks from --query to the text of --to; give all three")
    if query is None and suite is None:
        raise InputError("name a suite (--suite DEV), or a query (--query Q) with --suite or --target text --to TEXT")
    outputs = {"--out": out, "--pairs": pairs, "--published": published}
    writes = any(outputs.values())
    if query is not None and (writes or target == "gold"):
        raise InputError("--out, --pairs, --published and --target gold need a suite's queries; leave --query out")
    if suggester is not None and (query is not None or writes):
        raise InputError("--suggester is for the table; leave --query and outputs out, or see gemma4vec suggest")
    if query is not None and suite is None and to is None:
        raise InputError("--query with --target prf needs documents: name --suite DEV")
    if keep and writes:
        raise InputError("--keep is for the table or a walk; --out, --pairs and --published are files already")
    if decoder is None and log is None:
        raise InputError("nothing writes texts: name --decoder DIR, or --log FILE whose queries are taken")
    gates = Gates(diverse=diverse) if faithful is None else Gates(faithful=faithful, diverse=diverse)
    choices = Choices(n, step_degrees, points, feedback, weight, seed, gates)
    choices.check()
    from gemma4vec.cli.output import emit

    opened = _open_suite(suite, max_queries, seed) if suite is not None else None
    check_outputs(outputs)
    writing = _open_suggester(suggester, wanted)
    left_out = 0
    if writing is not None and opened is not None:
        from gemma4vec.fanout.never_walked import drop_walked

        opened, left_out = drop_walked(opened, writing.facts)
    embedder = _open_model(model, wanted, opened)
    writer, logged = _open_writer(embedder, decoder, log)
    if query is not None:
        walked = _one_walk(embedder, opened, writer, choices, query, to)
        emit(as_json, walked, _render_walk)
        if keep:
            keep_below_home("walk", walked)
        return
    assert opened is not None
    setting = _setting(embedder, opened, writer, logged, choices, None if writes else paraphrase, writing)
    setting, gate = with_gate(setting, faithful)
    if writes:
        result = {**_write_walks(setting, target, outputs), "gate": gate.as_json()}
        emit(as_json, result, lambda found: f"{found['gate']['sentence']}\n{found['sentence']}")
        return
    from gemma4vec.evaluation.scoring.evaluate import record_command_look
    from gemma4vec.fanout.measure import METRIC, RECALL, measure_fanout
    from gemma4vec.machine.terminal import bars_by_stage

    with bars_by_stage("fanout") as report:
        measured = measure_fanout(setting, report=report)
    record_command_look("fanout", embedder, opened, [METRIC, RECALL])
    about = {"model": embedder.name, "suite": opened.name, "n": n, "seed": seed, "gate": gate.as_json()}
    table = {**about, "walked": left_out, **measured}
    emit(as_json, table, _render_table)
    if keep:
        keep_below_home("table", table)


def keep_below_home(kind: "Kind", result: dict[str, Any]) -> None:
    """Keep what was printed, and say where."""
    from gemma4vec.files import home
    from gemma4vec.ui.content.kept_results import keep_result

    logger.info(f"kept: {keep_result(home(), kind, result)}")


def check_outputs(outputs: dict[str, Path | None]) -> None:
    """Refuse names of files that nobody could read back; by option, None where it was not given.

    Raises:
        InputError: another ending, one file for two, or a folder that cannot be written.
    """
    from gemma4vec.files import check_writable

    seen: dict[Path, str] = {}
    for key, file in outputs.items():
        if file is None:
            continue
        if not file.name.endswith((".jsonl", ".jsonl.gz")):
            raise InputError(f"{key} {file}: the name must end in .jsonl or .jsonl.gz")
        check_writable(file)
        other = seen.setdefault(file.absolute(), key)
        if other != key:
            raise InputError(f"{key}: it is the file of {other}; name another one")


def _open_suggester(folder: Path | None, dtype: str | None) -> "Suggester | None":
    from gemma4vec.fanout.suggester import Suggester

    return None if folder is None else Suggester.load(folder, dtype=dtype)


def _open_suite(spec: str, most: int | None, seed: int) -> "RetrievalSuite":
    """The suite, or a sample of its queries."""
    from gemma4vec.cli.inversion.dev_suite import open_dev_suite
    from gemma4vec.data.suites.sample import sample_suite

    suite = open_dev_suite(spec)
    return sample_suite(suite, most, None, seed=seed) if most is not None else suite


def _open_model(model: str, dtype: str | None, suite: "RetrievalSuite | None") -> "TextEmbedder":
    from gemma4vec.api.scoring import open_scorer
    from gemma4vec.evaluation.scoring.guards import check_allowed

    embedder: Any = open_scorer(model, dtype, None, cached=True)
    if suite is not None:
        check_allowed(embedder, [suite])
    return embedder


def _open_writer(
    embedder: "TextEmbedder", decoder: Path | None, log: Path | None
) -> tuple["Writer", "LogWriter | None"]:
    from gemma4vec.fanout.writers import DecoderWriter, LogWriter
    from gemma4vec.inversion.decoder import VectorDecoder
    from gemma4vec.inversion.held_out import normalized
    from gemma4vec.inversion.read_texts import read_texts

    logged, texts = None, []
    if log is not None:
        found, _ = read_texts([log], 1_000_000)
        texts = list({normalized(text): text for text in found}.values())
        logged = LogWriter(texts, embedder.encode_query(texts))
    if decoder is None:
        assert logged is not None
        return logged, logged
    inner: Any = getattr(embedder, "embedder", embedder)
    return DecoderWriter(VectorDecoder.load(decoder, inner, role="query"), texts), logged


def _setting(
    embedder: "TextEmbedder",
    suite: "RetrievalSuite",
    writer: "Writer",
    log: "LogWriter | None",
    choices: "Choices",
    paraphrase: str | None,
    suggester: "Suggester | None",
) -> "Setting":
    from gemma4vec.fanout.paraphrase import Paraphraser
    from gemma4vec.fanout.setting import Setting
    from gemma4vec.machine.terminal import bars_by_stage

    with bars_by_stage("encoding") as report:
        documents = embedder.encode_document(
            suite.corpus, progress=lambda done, total: report("documents", done, total)
        )
        queries = embedder.encode_query(suite.queries, progress=lambda done, total: report("queries", done, total))
    paraphraser = Paraphraser(paraphrase) if paraphrase is not None else None
    return Setting(suite, embedder, queries, documents, writer, log, choices, paraphraser, suggester)


def _write_walks(setting: "Setting", target: str, outputs: dict[str, Path | None]) -> dict[str, Any]:
    """Rows, pairs and records of all walks; after Ctrl-C those of the finished ones."""
    from gemma4vec.data.rows.jsonl import write_lines
    from gemma4vec.data.rows.rows import as_object
    from gemma4vec.fanout.training_rows import as_pairs, as_record, as_rows, walk_suite
    from gemma4vec.machine.terminal import bars_by_stage

    lines: dict[str, list[dict[str, Any]]] = {key: [] for key in outputs}
    queries, stopped = 0, False
    if target == "gold" and not any(setting.gold):
        raise InputError(f"--target gold: {setting.suite.name} has no judged document; use --target prf")
    with bars_by_stage("fanout") as report:
        try:
            for row, aim, found in walk_suite(setting, "gold" if target == "gold" else "prf", report):
                lines["--out"] += map(as_object, as_rows(setting, row, aim, found))
                lines["--pairs"] += map(as_object, as_pairs(setting, row, aim, found))
                lines["--published"].append(as_record(setting, row, found))
                queries += 1
        except KeyboardInterrupt:
            stopped = True
    files = {key: file for key, file in outputs.items() if file is not None}
    for key, file in files.items():
        write_lines(file, iter(lines[key]))
    words = {"--out": "rows", "--pairs": "pairs", "--published": "records"}
    said = "; ".join(f"{file}: {len(lines[key]):,} {words[key]} of {queries:,} queries" for key, file in files.items())
    said += "; gates saw no judgment"
    said += ", the walks' targets are judged documents" if target == "gold" else ""
    if stopped:
        raise KeyboardInterrupt(f"stopped; {said}")
    written = {words[key]: len(lines[key]) for key in files}
    return {"files": {key[2:]: str(file) for key, file in files.items()}, **written, "queries": queries} | {
        "target": target,
        "sentence": said,
    }


def _one_walk(
    embedder: "TextEmbedder",
    suite: "RetrievalSuite | None",
    writer: "Writer",
    choices: "Choices",
    query: str,
    to: str | None,
) -> dict[str, Any]:
    """The texts on one way, with their angles and cosines."""
    from gemma4vec.fanout.one_walk import walk_query

    target = f"the mean of the query's first {choices.feedback} hits" if to is None else to
    about = {"model": embedder.name, "suite": None if suite is None else suite.name}
    about |= {"query": query, "writer": writer.name, "target": target}
    return {**about, **walk_query(embedder, writer, choices, query, to, suite)}


def _render_walk(result: dict[str, Any]) -> Any:
    from gemma4vec.cli.output import table

    rows = [
        [f"{step['degrees']:.1f}", step["text"], step["to_query"], step["to_target"], step["rank"]]
        for step in result["steps"]
    ]
    columns = ["degrees", "text", "cosine to query", "to target", "target's rank"]
    ranked = result["rank"] is not None
    shown = rows if ranked else [row[:-1] for row in rows]
    return table(columns if ranked else columns[:-1], shown, f"from: {result['query']}")


def _lines_of_table(result: dict[str, Any]) -> Iterator[list[Any]]:
    def shown(value: dict[str, float] | None) -> str:
        return "" if value is None else f"{value['mean']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]"

    for row in result["rows"]:
        name = row["method"] + (" (oracle)" if row["oracle"] else "")
        texts = [f"{row[key]:.2f}" if key in row else "" for key in ("cosine", "alike", "verbatim")]
        yield [name, f"{row['kept']:.1f}", shown(row["gain"]), shown(row["best_minus_noise"]), *texts]


def _render_table(result: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    columns = ["method", "kept", "fused gain, no label", "best of n over noise's", "cosine", "alike", "verbatim"]
    own = result["ndcg@10"]
    title = (
        f"{result['suite']}: {result['queries']} queries alone nDCG@10 {own['mean']:.3f}; writer: {result['writer']}"
    )
    lines = [result["gate"]["sentence"], result["sentence"]]
    if result["walked"]:
        lines.insert(0, f"{result['walked']} queries are left out: the suggester learned from them or their documents.")
    return Group(table(columns, list(_lines_of_table(result)), title), *map(Text, lines))
