"""The input of a bulk encoding: files whose records are read from any shard's first one on, without holding them.

JSONL and texts (.gz and .zst too) are read from a byte, Parquet from a row, CSV and TSV from the beginning.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gemma4vec.data.rows.jsonl import parse_line, raw_lines
from gemma4vec.data.rows.records import Record, RejectError, text_record
from gemma4vec.data.sources.splits import kind_of_file
from gemma4vec.data.sources.tables import arrow_rows, csv_lines, csv_row
from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text
from gemma4vec.machine.file_hashes import file_hash
from gemma4vec.serving.encode.input_rows import IDS, Fields

if TYPE_CHECKING:
    import pyarrow.parquet

BLOCK = 1_000
KINDS = ".jsonl, .parquet, .csv, .tsv or .txt"


class Place(NamedTuple):
    """Where a record begins.

    Attributes:
        file: number of its file.
        offset: bytes of lines before it in the file (JSONL, texts), or rows before it (tables).
        number: lines or rows before it in the file, as messages count them.
    """

    file: int
    offset: int
    number: int


START = Place(0, 0, 0)


@dataclass(frozen=True)
class InputFiles:
    """The files of an input, in the order in which they are read; all are of one kind.

    Attributes:
        files: the files.
        kind: jsonl, txt, parquet, csv or tsv.
        fields: the names of its fields.
    """

    files: tuple[Path, ...]
    kind: str
    fields: Fields

    def sha256(self) -> str:
        """Hash of the contents of all files, in order.

        Raises:
            InputError: a file cannot be read.
        """
        hashes = [file_hash(file) for file in self.files]
        return hashes[0] if len(hashes) == 1 else sha256_text(*hashes)

    def stamp(self) -> list[tuple[int, int]]:
        """Size and time of change of each file, which show without reading that one has changed."""
        try:
            return [(found.st_size, found.st_mtime_ns) for found in (file.stat() for file in self.files)]
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror}); check the path") from error

    def records(self, start: Place = START) -> Iterator[tuple[Place, Record]]:
        """Every record from `start` on, with its place.

        Raises:
            InputError: a file is missing or damaged, or has no column of texts or ids.
        """
        read = READERS[self.kind]
        for number in range(start.file, len(self.files)):
            offset, before = (start.offset, start.number) if number == start.file else (0, 0)
            for place, record in read(self.files[number], self.fields, offset, before):
                yield Place(number, *place), record


def open_input(path: Path, fields: Fields, *, queries: bool = False) -> InputFiles:
    """The files of a path: a file, a folder in BEIR's layout, or a folder of Parquet files.

    With `queries`, a BEIR folder's queries are read in place of its corpus.

    Raises:
        InputError: there is nothing that can be read.
    """
    path = path.expanduser()
    if path.is_dir():
        files, kind = _files_of_folder(path, "queries.jsonl" if queries else "corpus.jsonl")
        return InputFiles(files, kind, fields)
    if not path.exists():
        raise InputError(f"{path}: no such file; name a file ({KINDS}) or a folder in BEIR's layout")
    bare = path.name.removesuffix(".gz").removesuffix(".zst")
    kind = "txt" if bare.endswith(".txt") else kind_of_file(path.name) or ""
    if not kind:
        raise InputError(f"{path}: its name does not say what it is; it must end in {KINDS}")
    if kind == "txt":
        fields = Fields(text="text", row_ids=True)
    return InputFiles((path,), kind, fields)


def _files_of_folder(folder: Path, name: str) -> tuple[tuple[Path, ...], str]:
    beir = next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)
    if beir is not None:
        return (beir,), "jsonl"
    tables = tuple(sorted(folder.glob("*.parquet")))
    if not tables:
        raise InputError(f"{folder}: has neither {name} nor Parquet files; name the file to encode")
    return tables, "parquet"


Found = Iterator[tuple[tuple[int, int], Record]]


def _lines(path: Path, offset: int, before: int) -> Iterator[tuple[tuple[int, int], bytes]]:
    for number, raw in raw_lines(path, blank=True, offset=offset, before=before):
        if raw.strip():
            yield (offset, number - 1), raw
        offset += len(raw)


def _jsonl(path: Path, fields: Fields, offset: int, before: int) -> Found:
    for place, raw in _lines(path, offset, before):
        number, value, reason = parse_line(place[1] + 1, raw)
        yield place, Record(str(path), number, value, reason)


def _texts(path: Path, fields: Fields, offset: int, before: int) -> Found:
    for place, raw in _lines(path, offset, before):
        yield place, text_record(path, place[1] + 1, raw)


def _csv(path: Path, fields: Fields, offset: int, before: int, *, tabs: bool = False) -> Found:
    lines = csv_lines(path, "utf-8", tabs=tabs)
    _, names = next(lines)
    used = check_columns(str(path), names, fields)
    for row, (started, cells) in enumerate(lines):
        if row < offset:
            continue
        try:
            record = Record(str(path), started, dict(csv_row(names, cells, used)))
        except RejectError as reject:
            name, reason = reject.args
            record = Record(str(path), started, None, reason, name)
        yield (row, started - 1), record


def _tsv(path: Path, fields: Fields, offset: int, before: int) -> Found:
    return _csv(path, fields, offset, before, tabs=True)


def _parquet(path: Path, fields: Fields, offset: int, before: int) -> Found:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path.absolute())
        used = check_columns(str(path), file.schema_arrow.names, fields)
        _check_types(path, file.schema_arrow, used)
        groups, row = _groups_from(file, offset)
        for block in file.iter_batches(BLOCK, row_groups=groups, columns=used):
            for cells in arrow_rows(block):
                if row >= offset:
                    bad = cells.args if isinstance(cells, RejectError) else None
                    yield (
                        (row, row),
                        Record(str(path), row + 1, None, bad[1], bad[0], "row")
                        if bad
                        else Record(str(path), row + 1, cells, unit="row"),  # type: ignore[arg-type]
                    )
                row += 1
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read as Parquet ({reason}); copy or make the file again") from error


def _groups_from(file: "pyarrow.parquet.ParquetFile", offset: int) -> tuple[list[int], int]:
    """The row groups from the one with row `offset` on, and the number of rows before them."""
    row = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if row + count > offset:
            return list(range(group, file.num_row_groups)), row
        row += count
    return [], row


def check_columns(where: str, names: Sequence[str], fields: Fields) -> list[str]:
    """The columns of a table that are read.

    Raises:
        InputError: there is no column of texts, or none of ids.
    """
    shown = ", ".join(map(repr, names[:12]))
    if fields.text not in names:
        raise InputError(f"{where}: no column {fields.text!r} for the text; name it with --text-field ({shown})")
    key = fields.id_of(names)
    if key is None and not fields.row_ids:
        wanted = fields.id or " or ".join(IDS)
        raise InputError(f"{where}: no column {wanted} for ids; name it with --id-field, or use --row-ids ({shown})")
    used = [fields.text, *([key] if key and not fields.row_ids else []), fields.title]
    return [name for name in dict.fromkeys(used) if name in names]


def _check_types(path: Path, schema: "pyarrow.Schema", used: Sequence[str]) -> None:
    from pyarrow import types

    for name in used:
        if schema.get_field_index(name) < 0:
            raise InputError(f"{path}: several columns are named {name!r}; rename all but one")
        kind = schema.field(name).type
        plain = kind.value_type if types.is_dictionary(kind) else kind
        text = types.is_string(plain) or types.is_large_string(plain) or types.is_null(plain)
        if not (text or types.is_integer(plain)):
            raise InputError(f"{path}, column {name!r}: expected texts, not {kind}; convert it or name another column")


READERS: dict[str, Callable[[Path, Fields, int, int], Found]] = {
    "jsonl": _jsonl,
    "txt": _texts,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
}
