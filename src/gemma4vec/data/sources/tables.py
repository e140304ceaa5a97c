"""Records of Parquet, CSV, TSV and `datasets`, read in blocks so that memory does not grow with the file."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma4vec.data.rows.decoded_lines import decoded_lines
from gemma4vec.data.rows.records import Record, RejectError
from gemma4vec.data.sources.columns import ColumnMap, map_columns, unread_columns
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import CsvSource, DatasetsSource, TableSource, TsvSource

if TYPE_CHECKING:
    import pyarrow

BLOCK = 1_000
LARGEST_CELL = 2**27


def parquet_records(path: Path, source: TableSource) -> Iterator[Record]:
    """Rows of a Parquet file.

    Raises:
        InputError: not a Parquet file, no known columns, or a column has neither texts nor token ids.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path.absolute())
        mapped = map_columns(file.schema_arrow.names, source.columns, str(path), plain=source.plain)
        check_types(file.schema_arrow, mapped, str(path))
        names = set(mapped.used) | {name for name in file.schema_arrow.names if name.endswith("_mask")}
        blocks = file.iter_batches(BLOCK, columns=[name for name in file.schema_arrow.names if name in names])
        unread = unread_columns(mapped, file.schema_arrow.names, source.columns)
        yield from _arrow_records(blocks, mapped, str(path), unread)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({_line(error)}); copy or make the file again") from error


def dataset_records(dataset: Any, source: DatasetsSource) -> Iterator[Record]:
    """Rows of a `datasets.Dataset`.

    Raises:
        InputError: no known columns, or a column has a wrong type.
    """
    where = f"{source.path} ({source.split})"
    mapped = map_columns(dataset.column_names, source.columns, where, plain=source.plain)
    arrow = dataset.with_format("arrow")
    check_types(arrow.data.schema, mapped, where)
    unread = unread_columns(mapped, dataset.column_names, source.columns)
    yield from _arrow_records((block for block in arrow.iter(BLOCK)), mapped, where, unread)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` of the `datasets` library wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def open_dataset(name: str, subset: str | None, split: str) -> Any:
    """The `datasets.Dataset` from a folder of `save_to_disk`, or from the hub (`owner/name@revision`).

    Raises:
        InputError: the data set cannot be loaded or has no such split.
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    import datasets

    folder = Path(name).expanduser()
    try:
        if is_saved_dataset(folder):
            found = datasets.load_from_disk(str(folder))
            if isinstance(found, datasets.DatasetDict):
                if split not in found:
                    raise InputError(f"{folder}: no split {split!r}; it has {', '.join(found)}")
                found = found[split]
            return found
        repository, _, revision = name.partition("@")
        return datasets.load_dataset(repository, subset, split=split, revision=revision or None)
    except InputError:
        raise
    except Exception as error:  # the library and the hub's client raise many types
        raise InputError(
            f"data: cannot load the data set {name!r}, split {split!r} ({_line(error)}); check the id, split and "
            "subset, and the network"
        ) from error


def check_types(schema: "pyarrow.Schema", mapped: ColumnMap, where: str) -> None:
    """Check that columns have texts, lists of texts or token ids, and that score columns have scores.

    Raises:
        InputError: names the column and its type.
    """
    from pyarrow import types

    def text(kind: Any) -> bool:
        # null: every cell is empty, as the last negative column can be
        return any(known(kind) for known in (types.is_string, types.is_large_string, types.is_struct, types.is_null))

    def fits(kind: Any) -> bool:
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            return text(kind.value_type) or types.is_integer(kind.value_type)
        return text(kind)

    def number(kind: Any) -> bool:
        listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        kind = kind.value_type if listed else kind
        return bool(types.is_floating(kind) or types.is_integer(kind))

    for name in mapped.used:
        kind = schema.field(name).type
        if name in mapped.scores and not (number(kind) or text(kind)):
            raise InputError(f"{where}, column {name!r}: expected scores (numbers, lists or objects), not {kind}")
        if name not in mapped.scores and not fits(kind):
            raise InputError(
                f"{where}, column {name!r}: expected texts, lists of texts or lists of token ids, not {kind}; "
                "convert it, or name another column in the source's `columns`"
            )


def _arrow_records(blocks: Any, mapped: ColumnMap, where: str, unread: tuple[str, ...]) -> Iterator[Record]:
    number = 0
    for block in blocks:
        for cells in arrow_rows(block):
            number += 1
            if isinstance(cells, RejectError):
                name, reason = cells.args
                yield Record(where, number, None, reason, name, "row")
            else:
                yield _record(where, number, mapped, cells, "row", unread)


def arrow_rows(block: Any) -> Iterator[dict[str, Any] | RejectError]:
    """The rows of a block; a `RejectError` in place of a row that is not UTF-8."""
    try:
        yield from block.to_pylist()
        return
    except UnicodeDecodeError:
        pass  # Arrow decodes on access, so find the bad row below
    for place in range(block.num_rows):
        row: dict[str, Any] = {}
        try:
            for name in block.schema.names:
                row[name] = block.column(name)[place].as_py()
            yield row
        except UnicodeDecodeError as error:
            yield RejectError(name, f"not UTF-8 at byte {error.start}")


def _record(
    where: str, number: int, mapped: ColumnMap, cells: dict[str, Any], unit: str, unread: tuple[str, ...]
) -> Record:
    try:
        return Record(where, number, mapped.record(cells), unit=unit, unread=unread)
    except RejectError as reject:
        name, reason = reject.args
        return Record(where, number, None, reason, name, unit)


def csv_records(path: Path, source: CsvSource | TsvSource | DatasetsSource, *, tabs: bool = False) -> Iterator[Record]:
    """Rows of a CSV file, or with `tabs` of a TSV file (.gz and .zst by suffix). Quotes have a meaning in CSV only.

    Raises:
        InputError: the file cannot be read, has an unclosed quote, or no known columns.
    """
    lines = csv_lines(path, source.encoding, tabs=tabs)
    _, names = next(lines)
    mapped = map_columns(names, source.columns, str(path), plain=source.plain)
    unread = unread_columns(mapped, names, source.columns)
    for started, cells in lines:
        yield _csv_record(path, started, names, cells, mapped, unread)


def csv_lines(path: Path, encoding: str, *, tabs: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Line at which it begins, and cells, of every row of a CSV or TSV file that is not blank, the header first.

    Raises:
        InputError: the file is empty or cannot be read, has an unclosed quote, or two columns have one name.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CELL))
    lines = decoded_lines(path, encoding)
    reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines, strict=True)
    started = 1
    try:
        names = next(reader, [])
        if not names:
            raise InputError(f"{path}: the file is empty; it must have a header line with column names")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{path} line 1: two columns are called {twice!r}; give each its own name")
        yield 1, names
        started = reader.line_num + 1
        for cells in reader:
            if cells:
                yield started, cells
            started = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} line {started}: not CSV ({error}); fix the quotes in this line") from error


def _csv_record(
    path: Path, line: int, names: list[str], cells: list[str], mapped: ColumnMap, unread: tuple[str, ...]
) -> Record:
    try:
        return _record(str(path), line, mapped, csv_row(names, cells, mapped.used), "line", unread)
    except RejectError as reject:
        name, reason = reject.args
        return Record(str(path), line, None, reason, name)


def csv_row(names: Sequence[str], cells: Sequence[str], used: Iterable[str]) -> dict[str, str]:
    """Column -> cell of a row of a CSV file.

    Raises:
        RejectError: another number of cells than columns, or a cell of `used` columns is not in the file's encoding.
    """
    if len(cells) != len(names):
        raise RejectError("", f"has {len(cells)} cells, the header has {len(names)}")
    row = dict(zip(names, cells, strict=True))
    for name in used:
        if any("\udc80" <= letter <= "\udcff" for letter in row[name]):
            raise RejectError(name, "is not text in the file's encoding")
    return row


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
