"""`gemma4vec serve`: a server with OpenAI's interface for embeddings."""

from pathlib import Path
from typing import Annotated

import typer

from gemma4vec.errors import InputError


def serve_command(
    run: Annotated[str, typer.Argument(help="Run folder, run id, latest, or a folder that gemma4vec saved.")],
    index: Annotated[
        str | None,
        typer.Option("--index", help="Index folder or store for /v1/search, such as RUN/index/test."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address; any but this machine's own needs --token-file.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", help="Port; 0 is any free one.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option("--workers", help="Number of processes on the port.", min=1, max=256)] = 1,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File with the bearer tokens to accept, one a line.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the model for clients; default: its own.")] = None,
    default_input_type: Annotated[
        str | None,
        typer.Option("--default-input-type", help="Role of texts without input_type: query or document."),
    ] = None,
    too_long: Annotated[
        str, typer.Option("--too-long", help="What happens to texts over the limit: error or truncate.")
    ] = "error",
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Limit of a text, below the model's own.", min=1)
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option("--batch-tokens", help="Tokens of a batch; default: what suits the device.", min=1)
    ] = None,
    queue_tokens: Annotated[
        int | None,
        typer.Option("--queue-tokens", help="Tokens that may wait; default: what takes ten seconds.", min=1),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Device; default: the fastest.")] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Number type: fp32 or bf16; default: the faster.")
    ] = None,
    compile_layers: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compile the layers before the server is ready.")
    ] = True,
) -> None:
    """Serve a trained model by HTTP, with OpenAI's /v1/embeddings.

    Requests name the role of their texts by input_type, query or document. Also
    answers /v1/search (with --index), /v1/models, /info, /metrics, /health/live
    and /health/ready. SIGTERM finishes accepted requests.
    """
    from importlib.util import find_spec

    if not all(find_spec(package) for package in ("starlette", "uvicorn", "h11")):
        raise InputError('the server needs packages that are not installed: pip install "gemma4vec[serve]"')
    if default_input_type not in (None, "query", "document"):
        raise InputError(f"--default-input-type {default_input_type} is not known; use query or document")
    if too_long not in ("error", "truncate"):
        raise InputError(f"--too-long {too_long} is not known; use error or truncate")
    if name is not None and not (name.strip() and name.isprintable()):
        raise InputError("--name is empty or has characters that cannot be printed; give a name")

    from gemma4vec.serving.http.guard import is_loopback, read_tokens

    tokens = () if token_file is None else read_tokens(token_file)
    if not tokens and not is_loopback(host):
        raise InputError(f"--host {host} is reachable by others; protect it with --token-file, or use 127.0.0.1")

    from gemma4vec.serving.http.http_protocol import bind
    from gemma4vec.serving.http.searcher import check_index
    from gemma4vec.serving.http.server import run_server
    from gemma4vec.serving.http.server_settings import ServerSettings, find_served_model
    from gemma4vec.serving.http.workers import run_workers

    model = find_served_model(run)
    if index is not None:
        check_index(index)
    settings = ServerSettings(
        model,
        index,
        host,
        port,
        workers,
        tokens,
        name,
        default_input_type,  # type: ignore[arg-type]
        too_long,  # type: ignore[arg-type]
        batch_tokens,
        queue_tokens,
        max_tokens,
        device,
        dtype,
        compile_layers,
    )
    sock = bind(host, port)
    (run_server if workers == 1 else run_workers)(settings, sock)
