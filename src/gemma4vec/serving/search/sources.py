"""What a run can search: its test corpus, all functions on this machine, or those of a folder."""

import re
from collections.abc import Callable
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.files import home, sha256_text
from gemma4vec.ledger.run_folder import find_run, list_runs
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.serving.search.documents import IndexedDocument, documents_of_functions
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.serving.search.storage import read_index
from gemma4vec.text.text_embedder import TextEmbedder

LATEST = "latest"


def find_searchable_run(name: str) -> Path:
    """The run folder with a model that `name` means: a path, a run id (or part of it) below `home()`, or "latest".

    Raises:
        InputError: there is none.
    """
    if name == LATEST:
        made = [run for run in list_runs(home()) if run.model.is_dir()]
        if not made:
            raise InputError(f"no run with a model in {home()}; make one with `gemma4vec quickstart`")
        return made[-1].path
    if not Path(name).is_dir() and len(name.split()) > 1:
        # Somebody left out the run: the words are the query.
        shown = name if len(name) <= 60 else name[:57] + "..."
        raise InputError(f'no run folder {shown!r}; to search the latest run, write: gemma4vec search latest "{shown}"')
    run = find_run(name, home())
    if not run.model.is_dir():
        raise InputError(f"{run.path} has no model/ yet, so there is nothing to search with; name a finished run")
    return run.path


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
    run: Path,
    embedder: TextEmbedder,
    everything: bool,
    folder: Path | None,
) -> SearchIndex:
    """Open the index of a source; embed what is missing first, with progress (`machine.terminal`).

    Raises:
        InputError: no index, one of another model, or no functions.
        KeyboardInterrupt: stopped; the message says how to go on.
    """
    place = index_folder(run, everything, folder)
    if not everything and folder is None:
        return SearchIndex.open(place, embedder.fingerprint)
    source, read = _functions(folder)
    if (ready := _ready(place, embedder.fingerprint, source)) is not None:
        return ready
    documents = read()
    if not documents:
        raise InputError(f"no Python functions in {folder or 'the packages of this machine'}; nothing to search")
    progress = ProgressBar("search index", "functions", final_line=True)
    try:
        with progress:
            return SearchIndex.build(
                place,
                documents,
                embedder,
                source=source,
                progress=progress,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{progress.done:,} of {progress.total or 0:,} functions are embedded; the same command goes on from there"
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


def _functions(folder: Path | None) -> tuple[str, Callable[[], list[IndexedDocument]]]:
    """What identifies the functions to search, quickly, and a way to read them, which takes longer."""
    if folder is not None:
        return _functions_of_folder(folder)
    from gemma4vec.data.pycode.build import load_or_build_pycode, read_functions

    made = load_or_build_pycode(home() / "data")
    return made.content_hash, lambda: documents_of_functions(read_functions(made.functions))


def _functions_of_folder(folder: Path) -> tuple[str, Callable[[], list[IndexedDocument]]]:
    """All functions of somebody's own code, with and without docstrings."""
    from gemma4vec.data.pycode.walk import find_folder_files, hash_files
    from gemma4vec.data.pycode.worker import extract_files

    files = find_folder_files(folder)
    return hash_files(files), lambda: documents_of_functions(extract_files(files).functions)
