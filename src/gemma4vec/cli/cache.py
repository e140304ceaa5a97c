"""`gemma4vec cache`: what is kept that can be made again, and how to be rid of it."""

from typing import Annotated, Any

import typer

app = typer.Typer(help="What is kept on disk and can be made again: vectors, rows, models.")

# Folders of the cache beside that of the vectors, which has a limit of its own.
OTHERS = {
    "bases": "base models, dequantised",
    "inductor": "compiled kernels",
    "rows": "rows of large sources",
    "tokens": "rows as tokens",
    "snapshots": "models of runs that were not finished",
    "apt": "package descriptions",
    "hub": "which files of the hub's data sets were read",
}

Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")]


@app.callback(invoke_without_command=True)
def list_command(ctx: typer.Context, as_json: Json = False) -> None:
    """Show whose vectors are kept and when they were last used, and how large all else is."""
    if ctx.invoked_subcommand is not None:
        return
    from gemma4vec.cli.output import emit
    from gemma4vec.model.inference.vector_store import limit_bytes, vectors_folder

    models, others = _models(), _others()
    plain = {"folder": str(vectors_folder()), "limit_bytes": limit_bytes(), "models": models, "others": others}
    emit(as_json, plain, lambda _: _render(models, others, str(vectors_folder()), limit_bytes()))


@app.command("clear")
def clear_command(
    model: Annotated[str | None, typer.Option("--model", help="Only this model's.", show_default=False)] = None,
    folder: Annotated[
        str | None,
        typer.Option("--folder", help=f"Instead of vectors: {', '.join(OTHERS)}.", metavar="NAME", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove kept vectors, or another folder of the cache; what is needed will be made again."""
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
        raise InputError(f"no vectors of a model '{model}' are kept; there are those of: {known}")
    for one in gone:
        with disk_errors(vectors_folder()):
            shutil.rmtree(Path(one["folder"]))
    size = sum(one["bytes"] for one in gone)
    what = folder or f"{len(gone)} models"
    emit(as_json, {"removed": gone, "bytes": size}, lambda _: f"removed {size / 1e9:.2f} GB of {what}")


def _models() -> list[dict[str, Any]]:
    """One entry for each model whose vectors are kept, the largest first."""
    import json

    from gemma4vec.model.inference.vector_store import META, folder_bytes, last_used, vectors_folder

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


def _others() -> list[dict[str, Any]]:
    """One entry for each other folder that there is."""
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
    line = f"{total / 1e9:.2f} of {limit / 1e9:g} GB in {folder}; empty it with: gemma4vec cache clear"
    kept = [[one["name"], one["what"], f"{one['bytes'] / 1e6:,.1f} MB"] for one in others]
    hint = Text("each goes with: gemma4vec cache clear --folder NAME")
    rest: list[Any] = [table(["folder", "what", "size"], kept), hint] if kept else []
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
