"""How commands of `inspect` are told a slice; models and suites that they open again."""

from pathlib import Path
from typing import Annotated

import typer

from gemma4vec.api.inspected import BM25, open_retrieval_suite, open_subject

__all__ = ["BM25", "InspectionFolder", "SliceName", "open_retrieval_suite", "open_subject"]

# Where a command finds its slice.
SliceName = Annotated[
    str, typer.Argument(help="A slice's id, or with --in a rule such as 'overlap <= 0.3'.", metavar="SLICE")
]
InspectionFolder = Annotated[
    Path | None, typer.Option("--in", help="Folder of the inspection; default: the one with the id.", metavar="DIR")
]
