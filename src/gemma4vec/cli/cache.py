"""`gemma4vec cache`: files that can be made again (vectors, rows, models), and how to delete them."""

from typing import Annotated, Any

import typer

from gemma4vec.reading.json_values import load_own_json

app = typer.Typer(help="List and clear cached vectors, rows and models.")

# Cache folders other than `vectors`, which has its own size limit.
OTHERS = {
    "bases": "base models, dequantized",
    "inductor": "compiled kernels",
    "rows": "rows of large sources",
    "tokens": "tokenized rows",
    "dry-runs": "measurements of layers",
    "snapshots": "models of unfinished runs",
    "apt": "package descriptions",
    "hub": "lists of the hub files that were read",
    "inspect": "steps of inspections",
}

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


@app.callback(invoke_without_command=True)
def list_command(ctx: typer.Context, as_json: Json = False) -> None:
    """List cached vectors by model with their size and last use, and the size of every other cache folder."""
    if ctx.invoked_subcommand is not None:
        return
    from gemma4vec.cli.output import emit
    from gemma4vec.model.inference.vector_store import limit_bytes, vectors_folder

    models, others = _models(), _others()
    plain = {"folder": str(vectors_folder()), "limit_bytes": limit_bytes(), "models": models, "others": others}
    emit(as_json, plain, lambda _: _render(models, others, str(vectors_folder()), limit_bytes()))


@app.command("clear")
def clear_command(
    model: Annotated[
        str | None, typer.Option("--model", help="Delete only this model's vectors.", show_default=False)
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            "--folder",
            help=f"Clear this folder instead of vectors: {', '.join(OTHERS)}.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete cached vectors or another cache folder. What is needed later is made again."""
    import shutil
    from pathlib import Path

    from gemma4vec.cli.output import emit
    from gemma4vec.errors import InputError
    from gemma4vec.files import disk_errors
    from gemma4vec.model.inference.vector_store import vectors_folder

    if folder is not None and (folder not in OTHERS or model is not None):
        raise InputError(f"--folder {folder}: use one of {', '.join(OTHERS)}, without --model")
    gone = [one for one in _models() if model is None or one["model"] == model]
    if folder is not None:
        gone = [one for one in _others() if one["name"] == folder]
    if model is not None and not gone:
        known = ", ".join(sorted({one["model"] for one in _models()})) or "none"
        raise InputError(f"no cached vectors of '{model}'; models with cached vectors: {known}")
    for one in gone:
        with disk_errors(vectors_folder()):
            shutil.rmtree(Path(one["folder"]))
    size = sum(one["bytes"] for one in gone)
    what = folder or f"{len(gone)} models"
    emit(as_json, {"removed": gone, "bytes": size}, lambda _: f"removed {size / 1e9:.2f} GB of {what}")


def _models() -> list[dict[str, Any]]:
    """One entry for each model with cached vectors, largest first."""

    from gemma4vec.model.inference.vector_store import META, folder_bytes, last_used, vectors_folder

    found = []
    root = vectors_folder()
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            about = load_own_json(folder / META)
        except (OSError, ValueError):
            about = {}
        sizes = {"bytes": folder_bytes(folder), "last_used": last_used(folder), "folder": str(folder)}
        about = about if isinstance(about, dict) else {}
        found.append({"model": str(about.get("model", "unknown")), "dtype": about.get("dtype"), **sizes})
    return sorted(found, key=lambda one: -one["bytes"])


def _others() -> list[dict[str, Any]]:
    """One entry for each other cache folder that exists."""
    from gemma4vec.files import cache, folder_bytes

    folders = {name: cache() / name for name in OTHERS}
    return [
        {"name": name, "what": OTHERS[name], "bytes": folder_bytes(folder), "folder": str(folder)}
        for name, folder in folders.items()
        if folder.is_dir()
    ]


def _render(models: list[dict[str, Any]], others: list[dict[str, Any]], folder: str, limit: int) -> Any:
    from datetime import UTC, datetime

    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    total = sum(one["bytes"] for one in models)
    line = f"{total / 1e9:.2f} of {limit / 1e9:g} GB in {folder}; clear them with: gemma4vec cache clear"
    folders = [[one["name"], one["what"], f"{one['bytes'] / 1e6:,.1f} MB"] for one in others]
    hint = Text("clear one with: gemma4vec cache clear --folder NAME")
    rest: list[Any] = [table(["folder", "contents", "size"], folders), hint] if folders else []
    if not models:
        return Group(Text(line), *rest)
    rows = [
        [
            one["model"],
            one["dtype"],
            f"{one['bytes'] / 1e6:,.1f} MB",
            datetime.fromtimestamp(one["last_used"], UTC).isoformat(" ", "minutes")[:16],
        ]
        for one in models
    ]
    return Group(table(["model", "dtype", "size", "last used (UTC)"], rows), Text(line), *rest)
