"""Export a model: write it next to its place, run it in its own program, compare, and only then rename it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import SafetensorError

from gemma4vec.errors import Gemma4VecError, InputError, WorkError
from gemma4vec.export.formats.write_folder import check_format_holds, write_format
from gemma4vec.export.limits import check_format
from gemma4vec.export.parity.gate import compare_export
from gemma4vec.export.parity.ranking import DOCUMENTS, QUERIES, open_dev_suite, record_ranking
from gemma4vec.export.parity.report import ParityReport
from gemma4vec.export.runtimes.ask import ask_process
from gemma4vec.export.source import Source, open_source
from gemma4vec.files import atomic_folder, home, write_json
from gemma4vec.ledger.run_folder import slug

PARITY_FILE = "parity.json"


class ParityError(WorkError):
    """An export that is not the model; `report` says where they differ."""

    def __init__(self, line: str, report: ParityReport):
        super().__init__(line)
        self.report = report


@dataclass(frozen=True)
class Export:
    """A finished export.

    Attributes:
        folder: its folder.
        path: what its program opens: the folder, or a file in it.
        report: the comparison that it passed, also in the folder's `parity.json`.
    """

    folder: Path
    path: Path
    report: ParityReport


def export_model(
    run: str | Path,
    to: str,
    *,
    dtype: str | None = None,
    dimension: int | None = None,
    out: Path | None = None,
    suite: str | None = None,
    queries: int = QUERIES,
    documents: int = DOCUMENTS,
) -> Export:
    """Export a finished run or a saved model.

    Args:
        run: run folder, run id, `latest`, or a folder that gemma4vec saved.
        to: "st", "onnx" or "gguf".
        dtype: number type; None: the format's usual one.
        dimension: number of leading dimensions, one of those that were trained; None: all.
        out: folder of the export, replaced whole; None: `exports/<format>-<dtype>` in the run.
        suite: dev suite on which rankings are compared; None: the run's own.
        queries, documents: largest part of the suite.

    Raises:
        InputError: no such model, a run that is not finished, a model or dimension that the format cannot hold, no dev
            suite, a folder with other files.
        ParityError: the export differs from the model; nothing is left of it.
        WorkError: its program fails, or the disk is full.
    """
    chosen = check_format(to, dtype)
    source = open_source(str(run))
    length = source.check_dimension(dimension)
    check_format_holds(source, to, length)
    ranked = open_dev_suite(source, suite, queries, documents)
    folder = out or _place(source, to, chosen, length)
    check_out(folder)
    with atomic_folder(folder) as temporary, _disk_errors(folder):
        path = write_format(source, temporary, to, chosen, length)
        ask = partial(ask_process, to, path, max_tokens=source.model.max_tokens)
        report = compare_export(source, ranked, ask, dtype=chosen, dimension=length)
        if report.ranking is not None:
            record_ranking("export", source, ranked, dtype=chosen, dimension=length)
        if not report.passed:
            line = f"--to {to}: the export is not {source.name} in {report.runtime}: {report.line()}"
            raise ParityError(line, report)
        write_json(temporary / PARITY_FILE, report.as_json())
    return Export(folder, folder / path.relative_to(temporary), report)


def check_out(folder: Path) -> None:
    """Refuse to replace a folder that is neither an export nor a saved model.

    Raises:
        InputError: it holds something else, or is a file.
    """
    if folder.is_file():
        raise InputError(f"--out {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        ours = (PARITY_FILE, "gemma4vec.json")
        if not any((folder / name).is_file() for name in ours):
            raise InputError(f"--out {folder} holds other files, which an export would replace; name another folder")


def _place(source: Source, to: str, dtype: str, dimension: int) -> Path:
    name = f"{to}-{dtype}" + (f"-{dimension}" if dimension < source.embedder.dimension else "")
    if source.run is not None:
        return source.run.path / "exports" / name
    return home() / "exports" / slug(source.name) / name


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Report a full disk, for which each library has its own error, in one line."""
    try:
        yield
    except Gemma4VecError:
        raise
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WorkError(f"could not write {folder}: {type(error).__name__}: {reason}; is the disk full?") from error
