"""Files that a recipe names and that are not there: refused before anything that takes long."""

from collections.abc import Iterable
from pathlib import Path

from gemma4vec.data.loading.built_sources import build_source
from gemma4vec.data.loading.load_rows import read_source
from gemma4vec.recipe.sources import BuiltSource, DatasetsSource, Source


def refuse_missing_files(sources: Iterable[Source]) -> None:
    """Refuse a source whose file or folder is not there, in the words of its reader; others are not read.

    Raises:
        InputError: one is missing.
    """
    for source in sources:
        if not source.path or isinstance(source, DatasetsSource) or Path(source.path).expanduser().exists():
            continue
        if isinstance(source, BuiltSource):
            build_source(source)
        else:
            read_source(source)
