"""What a run can search: its test corpus, all functions on this machine, or those of a folder."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from gemma4vec.errors import InputError
from gemma4vec.files import home, sha256_text
from gemma4vec.serving.build import DocumentEmbedder
from gemma4vec.serving.documents import read_functions
from gemma4vec.serving.index import SearchIndex
from gemma4vec.serving.progress import IndexProgress
from gemma4vec.serving.storage import read_index

if TYPE_CHECKING:
    from rich.console import Console

LATEST = "latest"


def find_run(name: str) -> Path:
    """The run folder that `name` means: a path, a name under `home()`, or the latest run there.

    Raises:
        InputError: there is none.
    """
    if name == LATEST:
        made = [path.parent for path in home().glob("*/manifest.json")] if home().is_dir() else []
        if not made:
            raise InputError(f"no run in {home()}; make one with `gemma4vec quickstart`, or name a run folder")
        # Run ids start with date and time, but a folder may have been renamed.
        return max(made, key=lambda path: ((path / "manifest.json").stat().st_mtime, path.name))
    for path in (Path(name), home() / name):
        if path.is_dir():
            if not (path / "model").is_dir():
                raise InputError(
                    f"{path} has no model/ folder, so there is no model to search with; name a finished run"
                )
            return path
    hint = f'; to search the latest run, write gemma4vec search latest "{name[:60]}"' if " " in name else ""
    raise InputError(f"no run folder {name[:200]!r} here or in {home()}{hint}")


def index_folder(run: Path, everything: bool, folder: Path | None) -> Path:
    """Where the index of a source stands in the run folder."""
    if folder is not None:
        where = str(folder.resolve())
        slug = re.sub(r"[^A-Za-z0-9]+", "-", folder.resolve().name).strip("-").lower()[:40]
        return run / "index" / f"folder-{slug}-{sha256_text(where)[:8]}"
    return run / "index" / ("all" if everything else "test")


def check_source(run: Path, everything: bool, folder: Path | None) -> None:
    """Raise InputError where the source cannot be searched, before anything slow happens."""
    if folder is not None and not folder.is_dir():
        raise InputError(f"--folder {folder} is no folder; name one that holds Python files")
    if not everything and folder is None:
        read_index(index_folder(run, everything, folder))


def open_index(
    run: Path, embedder: DocumentEmbedder, everything: bool, folder: Path | None, console: "Console"
) -> SearchIndex:
    """Open the index of a source; embed what is missing first, with progress on `console`.

    Raises:
        InputError: no index, one of another model, or no functions.
        KeyboardInterrupt: stopped; the message says how to go on.
    """
    place = index_folder(run, everything, folder)
    if not everything and folder is None:
        return SearchIndex.open(place, embedder.fingerprint)
    functions, source = _functions(folder, console)
    if (ready := _ready(place, embedder.fingerprint, source)) is not None:
        return ready
    documents = read_functions(functions)
    if not documents:
        raise InputError(f"no Python functions in {folder or 'the packages of this machine'}; nothing to search")
    progress = IndexProgress(console)
    try:
        with progress:
            return SearchIndex.build(
                place,
                documents,
                embedder,
                source=source,
                progress=progress,
                say=lambda message: console.print(message, markup=False, highlight=False, soft_wrap=True),
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{progress.done:,} of {progress.total:,} functions are embedded; the same command goes on from there"
        ) from None


def _ready(place: Path, fingerprint: str, source: str) -> SearchIndex | None:
    """The finished index of these functions by this model; None where it has to be built (which says why)."""
    if not place.exists():
        return None
    try:
        index = SearchIndex.open(place, fingerprint)
    except InputError:
        return None
    return index if index.meta.source == source else None


def _functions(folder: Path | None, console: "Console") -> tuple[Path, str]:
    """The file of functions to embed, and the hash of what it holds."""
    from gemma4vec.data.pycode import build_pycode, load_or_build_pycode

    def say(message: str) -> None:
        console.print(message, markup=False, highlight=False, soft_wrap=True)

    if folder is None:
        made = load_or_build_pycode(home() / "data", progress=say)
    else:
        # Always built again: it takes seconds, and the person may have changed their code.
        place = home() / "data" / f"folder-{sha256_text(str(folder.resolve()))[:12]}"
        made = build_pycode(place, folder=folder, negatives=0, progress=say)
    return made.folder / "functions.jsonl.gz", made.content_hash
