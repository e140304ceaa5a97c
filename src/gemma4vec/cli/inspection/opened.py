"""How commands of `inspect` are told a slice; options that they share; models and suites that they open again."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemma4vec.api.inspected import BM25, check_model, open_subject, suite_of_results

if TYPE_CHECKING:
    from gemma4vec.data.suites.retrieval import RetrievalSuite
    from gemma4vec.inspection.inspected import Subject

__all__ = ["BM25", "InspectionFolder", "SliceName", "check_model", "open_subject", "suite_of_results"]

# Where a command finds its slice.
SliceName = Annotated[
    str, typer.Argument(help="A slice's id, or with --in a rule such as 'overlap <= 0.3'.", metavar="SLICE")
]
InspectionFolder = Annotated[
    Path | None, typer.Option("--in", help="Folder of the inspection; default: the one with the id.", metavar="DIR")
]
Dev = Annotated[str, typer.Option("--suite", help="Dev suite for retrieval: a name or a folder.", metavar="DEV")]
TaskName = Annotated[
    str | None, typer.Option("--task", help="One task of a suite of several.", metavar="NAME", show_default=False)
]
Mirror = Annotated[
    Path | None, typer.Option("--mirror", help="Folder with copies of hub data sets, as OWNER/NAME.", metavar="DIR")
]
Dtype = Annotated[str, typer.Option("--dtype", help="auto (the fastest here), fp32 or bf16.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def open_dev_suite(suite: str, task: str | None, mirror: Path | None, use: str) -> "RetrievalSuite":
    """A suite that choices may be made on.

    Args:
        use: what it is opened for, for the refusal of a final suite.
    """
    from gemma4vec.evaluation.scoring.open_any_suite import open_retrieval_suite
    from gemma4vec.ledger.suite_access import check_choice

    opened_as = {"spec": suite, "task": task, "mirror": None if mirror is None else str(mirror)}
    loaded = open_retrieval_suite(opened_as)
    check_choice(use, loaded)  # before a model is loaded
    return loaded


def open_subjects(specs: Sequence[str], dtype: str) -> "list[Subject]":
    """Models by what a person typed; all of them are looked for before the first one is loaded."""
    from gemma4vec.cli.dtype import read_dtype

    chosen = read_dtype(dtype)
    for one in specs:
        check_model(one)
    return [open_subject({"spec": one, "dtype": chosen}) for one in specs]
