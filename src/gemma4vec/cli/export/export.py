"""`gemma4vec export`: write a trained model for another program, after comparing it with ours there."""

from pathlib import Path
from typing import Annotated

import typer


def export_command(
    run: Annotated[str, typer.Argument(help="Run folder, run id, latest, or a folder that gemma4vec saved.")],
    to: Annotated[str, typer.Option("--to", help="Format: st (sentence-transformers), onnx or gguf.")],
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Number type of gguf: f16 (default), f32, q8_0 or q4_0.")
    ] = None,
    dimension: Annotated[
        int | None, typer.Option("--dimension", help="Number of leading dimensions, one of those trained.", min=1)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the export; default: exports/ in the run.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Dev suite for comparing rankings; default: the run's own.")
    ] = None,
    queries: Annotated[int, typer.Option("--queries", help="Queries of the suite, at most.", min=2)] = 200,
    documents: Annotated[int, typer.Option("--documents", help="Documents of the suite, at most.", min=2)] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Export a trained model, compared with ours in the program that it is for.

    The export runs in its own program (sentence-transformers, onnxruntime or
    llama.cpp) on at least 256 texts and a dev suite. If token ids, vectors or
    rankings differ, nothing is written and the likely cause is named.
    """
    from gemma4vec.cli.export.parity import report_table
    from gemma4vec.cli.output import emit
    from gemma4vec.export.limits import check_format

    check_format(to, dtype)
    from gemma4vec.export.export_model import export_model

    made = export_model(
        run, to, dtype=dtype, dimension=dimension, out=out, suite=suite, queries=queries, documents=documents
    )
    value = {"path": str(made.path), **made.report.as_json()}
    emit(as_json, value, lambda found: f"{report_table(found)}\nwritten: {found['path']}")
