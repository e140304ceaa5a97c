"""Sources that are built before they are read: pairs from code or documents, with their suites."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gemma4vec.data.pycode.build import load_or_build_pycode
from gemma4vec.data.pycode.sampled_beside import Wanted, answer_of_child, sampled_beside
from gemma4vec.data.pycode.sampled_rows import PyCodeSample, sample_pycode
from gemma4vec.files import home
from gemma4vec.recipe.sources import BuiltSource, DocumentsSource, PycodeSource, Source

if TYPE_CHECKING:
    from gemma4vec.data.documents.build_documents import DocumentData


class Built(NamedTuple):
    """File of rows, folders of suites, and what a person must know."""

    rows: Path
    dev: Path | None
    test: Path
    warnings: list[str]


def build_source(source: BuiltSource) -> Built:
    """Return what is built from a source's files in their present state, below `HOME/data`.

    Raises:
        InputError: there is nothing to build from.
        WorkError: the disk is full, or a worker died.
    """
    if isinstance(source, DocumentsSource):
        documents = build_documents_of(source)
        return Built(documents.train, None, documents.test, documents.warnings)
    assert isinstance(source, PycodeSource)
    folder = Path(source.path).expanduser() if source.path else None
    code = load_or_build_pycode(home() / "data", folder=folder, negatives=source.negatives)
    return Built(code.train, code.dev, code.test, code.manifest["warnings"])


def sample_source(source: BuiltSource) -> PyCodeSample | None:
    """Return some of the rows that would be built; None: they are built already, or quickly, or a list names rows.

    Raises:
        InputError: there is nothing to build from.
    """
    wanted = _wanted_sample(source)
    if wanted is None:
        return None
    answer = answer_of_child(wanted)
    if answer is not None:
        return answer.sample
    return sample_pycode(wanted.data, folder=wanted.folder, negatives=wanted.negatives)


def samples_beside(sources: Iterable[Source]) -> AbstractContextManager[None]:
    """While this is open, children make what `sample_source` returns (`data.pycode.sampled_beside`)."""
    found = [_wanted_sample(source) for source in sources if isinstance(source, BuiltSource)]
    return sampled_beside(one for one in found if one is not None)


def _wanted_sample(source: BuiltSource) -> Wanted | None:
    if not isinstance(source, PycodeSource) or source.drop is not None or source.repeat is not None:
        return None
    folder = Path(source.path).expanduser() if source.path else None
    return Wanted(home() / "data", folder, source.negatives)


def build_documents_of(source: DocumentsSource) -> "DocumentData":
    """Return the data of a source of documents.

    Raises:
        InputError: as `data.documents.build_documents.load_or_build_documents`.
    """
    # Readers of PDF, HTML and notebooks take half a second to import.
    from gemma4vec.data.documents.build_documents import load_or_build_documents
    from gemma4vec.data.documents.document_rows import Settings

    queries = Path(source.queries).expanduser() if source.queries else None
    settings = Settings(queries, source.pairs, source.sentences, source.negatives)
    return load_or_build_documents(Path(source.path).expanduser(), settings, home() / "data")
