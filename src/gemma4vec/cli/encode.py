"""`gemma4vec encode`: encode a file of any size into a folder of vectors."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gemma4vec.errors import InputError, WorkError


def encode_command(
    run: Annotated[str, typer.Argument(help="Run folder, run id, latest, or a saved model folder.")],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="File of texts: JSONL, Parquet, CSV, TSV or TXT; or a folder in BEIR's layout."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Output folder; an unfinished one of the same plan goes on.")],
    input_type: Annotated[
        str, typer.Option("--input-type", help="What the texts are, document or query; decides the prompt.")
    ] = "document",
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", metavar="I/N", help="Encode part I of N, from 1; for arrays of jobs.", show_default=False
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Number of processes on this machine.", min=1)] = 1,
    file_format: Annotated[
        str, typer.Option("--format", help="Format of the shards: parquet, npy or lance.")
    ] = "parquet",
    dtype: Annotated[str, typer.Option("--dtype", help="Numbers of stored vectors: f32 or f16.")] = "f32",
    dimension: Annotated[
        int | None,
        typer.Option(
            "--dimension", help="Number of leading dimensions, one of those trained.", min=1, show_default=False
        ),
    ] = None,
    shard_rows: Annotated[int, typer.Option("--shard-rows", help="Rows of a shard.", min=1)] = 8192,
    id_field: Annotated[
        str | None, typer.Option("--id-field", help="Field of the id; default: id or _id.", show_default=False)
    ] = None,
    text_field: Annotated[str, typer.Option("--text-field", help="Field of the text.")] = "text",
    title_field: Annotated[str, typer.Option("--title-field", help="Field of the title.")] = "title",
    row_ids: Annotated[bool, typer.Option("--row-ids", help="Use each row's number, from 1, as its id.")] = False,
    max_bad_share: Annotated[
        float, typer.Option("--max-bad-share", help="Largest share of rows that may be rejected.", min=0, max=1)
    ] = 0.0,
    lease_seconds: Annotated[
        float, typer.Option("--lease-seconds", help="Time after which a dead host's shard is taken over.", min=1)
    ] = 60.0,
    check: Annotated[
        bool, typer.Option("--check", help="Only verify OUT: sums, counts and lengths of vectors.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Encode a file of texts of any size with a trained model.

    The output is fixed shards of rows. An interrupted command goes on when it
    is given again, and writes the same bytes. Several hosts may run the same
    command on one shared folder.
    """
    from gemma4vec.cli.output import emit
    from gemma4vec.machine.terminal import ProgressBar
    from gemma4vec.serving.encode.encode_file import EncodeSettings, encode_file, parse_part
    from gemma4vec.serving.encode.input_rows import Fields
    from gemma4vec.training.processes.stop_signals import StopSignals

    if shard is not None and workers > 1:
        raise InputError("--shard and --workers exclude each other; run one process for each part")
    if row_ids and id_field is not None:
        raise InputError("--row-ids and --id-field exclude each other; use one")
    part = parse_part(shard) if shard is not None else (1, 1)
    if check:
        from gemma4vec.serving.encode.check_output import check_output

        with ProgressBar("checking", "shards") as bar:
            found = check_output(out, bar)
        if found.good or as_json:
            emit(as_json, found.as_json(), _checked)
        if not found.good:
            raise WorkError(found.line(out))
        return
    from gemma4vec.serving.encode.bulk_embedder import ModelOpener

    fields = Fields(id_field, text_field, title_field, row_ids)
    settings = EncodeSettings(
        input_type, fields, shard_rows, file_format, dtype, dimension, max_bad_share, lease_seconds
    )
    with StopSignals("the same command").caught():
        made = encode_file(ModelOpener(run), source, out, settings, part=part, workers=workers)
    emit(as_json, made.as_json(), _encoded)


def _encoded(value: dict[str, Any]) -> str:
    speed = value["tokens_per_second"]
    rate = f", {speed:,.0f} tokens/s" if speed else ""
    odd = [f"{value[name]:,} {name}" for name in ("rejected", "truncated") if value[name]]
    return (
        f"{value['out']}: {value['shards_done']:,} of {value['shards']:,} shards are done; "
        f"{value['encoded']:,} rows encoded now as {value['input_type']} texts{rate}"
        + "".join(f", {one}" for one in odd)
    )


def _checked(value: dict[str, Any]) -> str:
    repeated = f"; {value['repeated_ids']:,} ids are in several shards" if value["repeated_ids"] else ""
    return (
        f"{value['encoded']:,} vectors in {value['shards']:,} shards are whole and of length one; "
        f"{value['rejected']:,} rows rejected{repeated}"
    )
