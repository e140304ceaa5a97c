"""The documents that a run searches: its test corpus, all functions on this machine, or those of a folder.

A run that was trained on a folder of documents searches that folder, in its present state.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.files import home, sha256_text
from gemma4vec.ledger.run_folder import RECIPE, RunFolder, find_run, list_runs
from gemma4vec.ledger.run_recipe import read_recipe
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.recipe.sources import DocumentsSource
from gemma4vec.serving.search.documents import IndexedDocument, documents_from_functions, documents_from_sections
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.serving.search.storage import read_index
from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

LATEST = "latest"


def find_searchable_run(name: str) -> Path:
    """Find a run folder with a model by path, run id (or a part of it) in `home()`, or "latest".

    Raises:
        InputError: no such run, or a run without a model.
    """
    if name == LATEST:
        made = [run for run in list_runs(home()) if run.model.is_dir()]
        if not made:
            raise InputError(f"no run with a model in {home()}; make one with `gemma4vec quickstart`")
        return made[-1].path
    if not Path(name).is_dir() and len(name.split()) > 1:
        # Several words are a query without a run in front of it.
        shown = name if len(name) <= 60 else name[:57] + "..."
        raise InputError(f'no run folder {shown!r}; to search the latest run, use: gemma4vec search latest "{shown}"')
    run = find_run(name, home())
    if not run.model.is_dir():
        raise InputError(f"{run.path} has no model/ yet, so it cannot search; use a finished run")
    return run.path


def index_folder(run: Path, everything: bool, folder: Path | None) -> Path:
    """Return the folder of a source's index in the run folder."""
    everything = everything or own_folder(run) is not None
    if folder is not None:
        where = str(folder.resolve())
        slug = re.sub(r"[^A-Za-z0-9]+", "-", folder.resolve().name).strip("-").lower()[:40]
        return run / "index" / f"folder-{slug}-{sha256_text(where)[:8]}"
    return run / "index" / ("all" if everything else "test")


def own_folder(run: Path) -> Path | None:
    """Return the folder of documents that the run was trained on; None for other runs."""
    if not (run / RECIPE).is_file():  # a model that was copied or made otherwise
        return None
    try:
        recipe = read_recipe(RunFolder(run))
    except (InputError, OSError):  # a search needs the model and an index, not the recipe
        return None
    sources = [source for stage in recipe.stages for source in stage.data]
    return next((Path(one.path).expanduser() for one in sources if isinstance(one, DocumentsSource)), None)


def check_source(run: Path, everything: bool, folder: Path | None) -> None:
    """Check that the source can be searched, before anything slow happens.

    Raises:
        InputError: the folder does not exist, or the test corpus has no index.
    """
    own = own_folder(run)
    if folder is not None and not folder.is_dir():
        raise InputError(f"--folder {folder} is not a folder; use one with {'documents' if own else 'Python files'}")
    if own is not None and folder is None:
        if not own.is_dir():
            read_index(index_folder(run, everything, folder))
    elif not everything and folder is None:
        read_index(index_folder(run, everything, folder))


def open_index(
    run: Path,
    embedder: TextEmbedder,
    everything: bool,
    folder: Path | None,
) -> SearchIndex:
    """Open the index of a source. Build it first if it is missing or outdated, with a progress bar.

    Vectors of documents that have not changed are used again.

    Raises:
        InputError: no index, an index of another model, or no functions or documents.
        KeyboardInterrupt: interrupted; the message says how to continue.
    """
    place = index_folder(run, everything, folder)
    own = own_folder(run)
    if own is not None:
        unit, searched = "sections", folder or own
        if not searched.is_dir():
            logger.info(f"{searched} is gone; what was indexed of it is searched")
            return SearchIndex.open(place, embedder.fingerprint)
        source, read = _find_sections(searched)
    elif not everything and folder is None:
        return SearchIndex.open(place, embedder.fingerprint)
    else:
        unit, (source, read) = "functions", _find_functions(folder)
    if (ready := _open_current(place, embedder.fingerprint, source)) is not None:
        return ready
    documents = read()
    if not documents:
        what = "documents with text" if own else "Python functions"
        raise InputError(f"no {what} in {folder or own or 'the packages of this machine'}; nothing to search")
    progress = ProgressBar("search index", unit, final_line=True)
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
            f"{progress.done:,} of {progress.total or 0:,} {unit} are embedded; run the same command to continue"
        ) from None


def _open_current(place: Path, fingerprint: str, source: str) -> SearchIndex | None:
    """Open the index of these functions by this model; None if it must be built (the build logs why)."""
    if not place.exists():
        return None
    try:
        index = SearchIndex.open(place, fingerprint)
    except InputError:
        return None
    return index if index.meta.source == source else None


def _find_sections(folder: Path) -> tuple[str, Callable[[], list[IndexedDocument]]]:
    """Return the hash of a folder's documents, and a function that reads their sections."""
    from gemma4vec.data.documents.build_documents import current_sections

    source, read = current_sections(folder, home() / "data")
    return source, lambda: documents_from_sections(read())


def _find_functions(folder: Path | None) -> tuple[str, Callable[[], list[IndexedDocument]]]:
    """Return the hash of the functions to search, and a function that reads them, which is slower."""
    if folder is not None:
        return _find_functions_in_folder(folder)
    from gemma4vec.data.pycode.build import load_or_build_pycode, read_functions

    made = load_or_build_pycode(home() / "data")
    return made.content_hash, lambda: documents_from_functions(read_functions(made.functions))


def _find_functions_in_folder(folder: Path) -> tuple[str, Callable[[], list[IndexedDocument]]]:
    """The same for all functions of a folder, with and without docstrings."""
    from gemma4vec.data.pycode.walk import find_folder_files, hash_files
    from gemma4vec.data.pycode.worker import extract_files

    files = find_folder_files(folder)
    return hash_files(files), lambda: documents_from_functions(extract_files(files).functions)
