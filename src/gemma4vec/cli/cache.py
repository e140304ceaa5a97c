"""`gemma4vec cache`: what is kept of encoded texts, and how to be rid of it."""

from typing import Annotated, Any

import typer

app = typer.Typer(help="The vectors that evaluations keep on disk.")

Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")]


@app.callback(invoke_without_command=True)
def list_command(ctx: typer.Context, as_json: Json = False) -> None:
    """Show whose vectors are kept, how large they are and when they were last used."""
    if ctx.invoked_subcommand is not None:
        return
    from gemma4vec.cli.output import emit
    from gemma4vec.model.vector_store import limit_bytes, vectors_folder

    models = _models()
    plain = {"folder": str(vectors_folder()), "limit_bytes": limit_bytes(), "models": models}
    emit(as_json, plain, lambda _: _render(models, str(vectors_folder()), limit_bytes()))


@app.command("clear")
def clear_command(
    model: Annotated[str | None, typer.Option("--model", help="Only this model's.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Remove kept vectors; they will be computed again where they are needed."""
    import shutil
    from pathlib import Path

    from gemma4vec.cli.output import emit
    from gemma4vec.errors import InputError
    from gemma4vec.files import disk_errors
    from gemma4vec.model.vector_store import vectors_folder

    gone = [one for one in _models() if model is None or one["model"] == model]
    if model is not None and not gone:
        known = ", ".join(sorted({one["model"] for one in _models()})) or "none"
        raise InputError(f"no vectors of a model '{model}' are kept; there are those of: {known}")
    for one in gone:
        with disk_errors(vectors_folder()):
            shutil.rmtree(Path(one["folder"]))
    size = sum(one["bytes"] for one in gone)
    emit(as_json, {"removed": gone, "bytes": size}, lambda _: f"removed {size / 1e9:.2f} GB of {len(gone)} models")


def _models() -> list[dict[str, Any]]:
    """One entry for each model whose vectors are kept, the largest first."""
    import json

    from gemma4vec.model.vector_store import META, folder_bytes, last_used, vectors_folder

    found = []
    root = vectors_folder()
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            about = json.loads((folder / META).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            about = {}
        sizes = {"bytes": folder_bytes(folder), "last_used": last_used(folder), "folder": str(folder)}
        about = about if isinstance(about, dict) else {}
        found.append({"model": str(about.get("model", "unknown")), "dtype": about.get("dtype"), **sizes})
    return sorted(found, key=lambda one: -one["bytes"])


def _render(models: list[dict[str, Any]], folder: str, limit: int) -> Any:
    from datetime import UTC, datetime

    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    total = sum(one["bytes"] for one in models)
    line = f"{total / 1e9:.2f} of {limit / 1e9:g} GB in {folder}; empty it with: gemma4vec cache clear"
    if not models:
        return line
    rows = [
        [
            one["model"],
            one["dtype"],
            f"{one['bytes'] / 1e6:,.1f} MB",
            datetime.fromtimestamp(one["last_used"], UTC).isoformat(" ", "minutes")[:16],
        ]
        for one in models
    ]
    return Group(table(["model", "dtype", "size", "last used (UTC)"], rows), Text(line))
