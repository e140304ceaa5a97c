"""`gemma4vec parity`: compare a server or a file with the model that it should be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gemma4vec.errors import InputError, WorkError


def parity_command(
    target: Annotated[str, typer.Argument(help="URL of an OpenAI-compatible server, GGUF file, or exported folder.")],
    run: Annotated[str, typer.Argument(help="Run folder, run id, latest, or a folder that gemma4vec saved.")],
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Number type, which sets the limits: f32, f16, bf16, q8_0 or q4_0.")
    ] = None,
    dimension: Annotated[
        int | None, typer.Option("--dimension", help="Number of dimensions that carry values.", min=1)
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Name of the model on the server.")] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with the server's token.")] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Dev suite for comparing rankings; default: the run's own.")
    ] = None,
    queries: Annotated[int, typer.Option("--queries", help="Queries of the suite, at most.", min=2)] = 200,
    documents: Annotated[int, typer.Option("--documents", help="Documents of the suite, at most.", min=2)] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Compare a running server, or an exported file, with the trained model.

    Works with text-embeddings-inference, vLLM, Ollama, llama-server and every
    other server of OpenAI's /v1/embeddings. Prompts are put before the texts
    here. Ends with exit code 1 and the likely cause if they differ.
    """
    from gemma4vec.cli.output import emit

    token = _token(token_file)
    from gemma4vec.export.check_parity import check_parity

    report = check_parity(
        target,
        run,
        dtype=dtype,
        dimension=dimension,
        model=model,
        token=token,
        suite=suite,
        queries=queries,
        documents=documents,
    )
    if as_json or report.passed:
        emit(as_json, report.as_json(), report_table)
    if not report.passed:
        raise WorkError(f"{target} is not {report.model}: {report.line()}")


def report_table(found: Mapping[str, Any]) -> str:
    """The numbers of a comparison, a line each."""
    ranking = found["ranking"]
    tokens = f"equal on {found['tokens']} texts" if found["tokens"] else "not said by the program"
    wide = f" of {found['width']}" if found["width"] != found["dimension"] else ""
    return "\n".join(
        [
            f"{found['runtime']} against {found['model']}, {found['dtype']}, {found['dimension']}{wide} dimensions",
            f"cosine: min {found['cosine_min']:.6f}, mean {found['cosine_mean']:.6f} on {found['texts']} texts",
            f"alone or in another batch: min {found['alone_min']:.6f}",
            f"token ids: {tokens}",
            f"texts over the limit: {found['over_limit']}",
            f"nDCG@10 on {ranking['suite']}: {ranking['export']:.4f}, ours {ranking['model']:.4f} "
            f"(difference {ranking['difference']:+.4f}, margin {ranking['margin']:g})",
        ]
    )


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {file} cannot be read ({error})") from error
