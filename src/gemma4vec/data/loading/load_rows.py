"""Training rows from the sources in a recipe's `data`."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gemma4vec.data.batching.mixture import MixedRows, Part, compute_shares
from gemma4vec.data.batching.repeated_rows import read_repeats, repeat_rows
from gemma4vec.data.batching.short_rows import leave_out_short_rows
from gemma4vec.data.loading.built_sources import build_source, sample_source
from gemma4vec.data.rows.row_store import StoredRows, open_or_write, write_store
from gemma4vec.data.rows.rows import Row, RowsRead, check_bad_share, content_hash, format_share, parse_rows
from gemma4vec.data.sources.drops import apply_drops, read_drops
from gemma4vec.data.sources.open_source import SourceReader, open_reader
from gemma4vec.data.sources.tensor_rows import TensorRows, check_tensors, refuse_bad_tensors
from gemma4vec.errors import InputError
from gemma4vec.files import cache, sha256_text
from gemma4vec.machine.file_hashes import file_hash
from gemma4vec.recipe.sources import (
    BuiltSource,
    Mixture,
    Source,
    TableSource,
    TensorsSource,
    TextSource,
    all_keys,
    check_mixture,
)
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document

logger = logging.getLogger(__name__)

# Sources with more bytes become a memory-mapped store (`data.rows.row_store`).
LARGE_BYTES = 64 * 2**20
SHOWN_KEYS = 20
# Key of a source's facts: the files of the sample that stands for its rows.
SAMPLED = "sampled"
# Keys of a source that decide which rows its files contain.
READING = ("source", "columns", "split", "subset", "table", "language", "encoding", "drop", "pair_with_itself")


@dataclass
class TrainingData:
    """The rows and plain texts of a stage's sources, in order.

    Attributes:
        rows: all rows.
        texts: all plain texts.
        sources: name -> {"source", "path", "rows", "bad_rows", "content_hash", "counts", ...}, for the manifest;
            "left_out" is the number of rows that are not in `rows`, for lack of hard negatives.
        dev_suite: folder of the first dev suite that a source comes with, if any.
        test_suite: folder of the first test suite that a source comes with, if any.
    """

    rows: Sequence[Row] = field(default_factory=list)
    texts: Sequence[str] = field(default_factory=list)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    dev_suite: Path | None = None
    test_suite: Path | None = None


@dataclass
class SourceRows:
    """The rows of one source, and facts about them. A plain text is a row without a positive."""

    rows: Sequence[Row]
    bad: int = 0
    first_bad: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    unknown_keys: list[str] = field(default_factory=list)
    content_hash: str = ""
    largest_token: int = -1
    revision: str = ""


def load_sources(
    sources: Sequence[Source], mixture: Mixture | None = None, *, hard_negatives: int = 0, sample: bool = False
) -> TrainingData:
    """Read every source of a stage.

    Args:
        sources: the stage's.
        mixture: how they are mixed.
        hard_negatives: negatives that each row needs. The few rows with fewer are left out and counted
            (`data.batching.short_rows`).
        sample: of a source that takes minutes to build and is not built yet, read a sample; its facts say so
            (`SAMPLED`), and it has no suites.

    Raises:
        InputError: two sources have one name, a file cannot be read, or too many rows are bad.
    """
    try:
        check_mixture(tuple(sources), mixture or Mixture())
    except ValueError as error:
        raise InputError(str(error)) from error
    loaded = TrainingData()
    rows: list[tuple[Source, Sequence[Row]]] = []
    texts: list[Part] = []
    for source in sources:
        path = source.path
        drawn = sample_source(source) if sample and isinstance(source, BuiltSource) else None
        if drawn is not None:
            some = drawn.rows[: source.max_rows]
            path, read = str(drawn.path), SourceRows(some, content_hash=content_hash(some))
        elif isinstance(source, BuiltSource):
            built = build_source(source)
            for warning in built.warnings:
                logger.warning(f"{source.name}: {warning}")
            loaded.dev_suite = loaded.dev_suite or built.dev
            loaded.test_suite = loaded.test_suite or built.test
            path = str(built.rows)
            read = read_source(source.built_rows(path))
        else:
            read = read_source(source)
        if source.plain and not source.own_positives:
            texts.append(Part(source.name, read.rows))
        else:
            rows.append((source, read.rows))
        loaded.sources[source.name] = _facts(source, path, read)
        if drawn is not None:
            loaded.sources[source.name][SAMPLED] = {"files": drawn.files, "of": drawn.all_files}
        _report(source, read)
    mixture = mixture or Mixture()
    shares = compute_shares(
        [len(found) for _, found in rows], [source.weight for source, _ in rows], mixture.temperature
    )
    parts = [Part(source.name, found, share) for (source, found), share in zip(rows, shares, strict=True)]
    mixed = MixedRows(parts, mixture.one_source_batches, mixture.one_task_batches)
    loaded.rows, left_out = leave_out_short_rows(mixed, hard_negatives)
    for name, count in left_out.items():
        loaded.sources[name]["left_out"] = count
        logger.warning(
            f"{name}: {count:,} of {loaded.sources[name]['rows']:,} rows have fewer than {hard_negatives} hard "
            "negatives and are left out"
        )
    loaded.texts = PlainTexts(MixedRows(texts))
    return loaded


class PlainTexts(Sequence[str]):
    """The texts of rows without positives.

    Attributes:
        rows: the rows.
    """

    def __init__(self, rows: MixedRows):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        found = self.rows[index]
        return [row.query for row in found] if isinstance(found, list) else found.query

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def read_source(source: Source) -> SourceRows:
    """Read one source into memory, or into a store if its files are large; rows of its `repeat` stand several times.

    A store is used again until the files change. Tensors are memory-mapped.

    Raises:
        InputError: the source cannot be read, has no row, or too many bad rows.
    """
    read = _read_once(source)
    if source.repeat is None:
        return read
    file = Path(source.repeat).expanduser()
    rows = repeat_rows(read.rows, read_repeats(file), source.name)
    return replace(read, rows=rows, content_hash=sha256_text(read.content_hash, file_hash(file)))


def _read_once(source: Source) -> SourceRows:
    if isinstance(source, TensorsSource):
        return _read_tensors(source)
    found = open_reader(source)
    if found.bytes < LARGE_BYTES:
        noted = RowsRead()
        rows = [
            _pair_with_itself(row) if source.own_positives else row
            for row in _without_drops(parse_rows(found.records(), noted, plain=source.plain), source)
        ]
        check_bad_share(noted, len(rows), source.max_bad_share, found.where, _unit(source))
        rows = rows[: source.max_rows]
        return SourceRows(
            rows,
            len(noted.bad),
            str(noted.bad[0]) if noted.bad else "",
            dict(noted.counts),
            sorted(noted.unknown_keys),
            content_hash(rows),
            max(
                (max(text.ids) for row in rows for text in _all_texts(row) if isinstance(text, PretokenizedText)),
                default=-1,
            ),
            found.revision,
        )
    store = open_or_build_store(source, found)
    bad = store.facts["bad"]
    if bad > source.max_bad_share * (bad + len(store)):
        raise InputError(
            f"{store.facts['first_bad']} ({bad} of {bad + len(store)} {_unit(source)} are bad, "
            f"{format_share(source.max_bad_share)} are allowed); mend them or allow a larger share (max_bad_share)"
        )
    facts = store.facts
    content = facts["content_hash"] if source.max_rows is None else f"{facts['content_hash']}:{source.max_rows}"
    return SourceRows(
        store.first(source.max_rows),
        bad,
        facts["first_bad"],
        facts["counts"],
        facts["unknown_keys"],
        content,
        facts["largest_token"],
        found.revision,
    )


def _read_tensors(source: TensorsSource) -> SourceRows:
    path = Path(source.path).expanduser()
    content = file_hash(path)
    checked = check_tensors(path, content)
    first_bad = refuse_bad_tensors(path, checked, source.max_bad_share)
    rows = TensorRows(path, checked, pair_with_itself=source.pair_with_itself).first(source.max_rows)
    content = content if len(rows) == checked.rows else f"{content}:{len(rows)}"
    return SourceRows(rows, len(checked.bad), first_bad, content_hash=content, largest_token=checked.largest_token)


def open_or_build_store(source: Source, found: SourceReader) -> StoredRows:
    """The store of a source; built if there is none, or if its files or settings changed.

    Raises:
        InputError: a file cannot be read, no row is good, or too many are bad.
    """
    settings = all_keys(source)
    reading = json.dumps({key: settings[key] for key in READING}, sort_keys=True)
    files = [*found.files, *([Path(source.drop).expanduser()] if source.drop else [])]
    key = sha256_text(reading, found.identity, *(file_hash(file) for file in files))
    folder = cache() / "rows" / sha256_text(found.where, reading)[:24]

    def write() -> StoredRows:
        logger.info(f"{source.name}: reading {found.bytes / 2**20:,.0f} MiB once, into {folder}")
        noted = RowsRead()
        facts: dict[str, Any] = {"key": key, "where": found.where}

        def rows() -> Iterator[Row]:
            good = 0
            for row in _without_drops(parse_rows(found.records(), noted, plain=source.plain), source):
                good += 1
                yield _pair_with_itself(row) if source.own_positives else row
            check_bad_share(noted, good, source.max_bad_share, found.where, _unit(source))
            facts["bad"], facts["first_bad"] = len(noted.bad), str(noted.bad[0]) if noted.bad else ""
            facts["counts"], facts["unknown_keys"] = dict(noted.counts), sorted(noted.unknown_keys)

        return write_store(folder, rows(), facts)

    return open_or_write(folder, key, write)


def _without_drops(rows: Iterator[Row], source: Source) -> Iterator[Row]:
    """The rows without those in the source's drop list."""
    return apply_drops(rows, read_drops(Path(source.drop).expanduser())) if source.drop else rows


def _pair_with_itself(row: Row) -> Row:
    """A plain text with itself as positive."""
    return Row(row.query, [Document(row.query)])


def _all_texts(row: Row) -> list[str]:
    return [row.query, *(document.text for document in (*row.pos, *row.neg))]


def _unit(source: Source) -> str:
    return "lines" if isinstance(source, TextSource) else "rows"


def _keys(source: Source) -> str:
    return "columns" if isinstance(source, TableSource) else "keys in rows"


def _facts(source: Source, path: str | None, read: SourceRows) -> dict[str, Any]:
    facts = {
        "source": source.source,
        "path": path,
        "rows": len(read.rows),
        "bad_rows": read.bad,
        "content_hash": read.content_hash,
        "counts": read.counts,
    }
    if read.largest_token >= 0:
        facts["largest_token"] = read.largest_token
    if read.revision:
        facts["revision"] = read.revision
    return facts


def _report(source: Source, read: SourceRows) -> None:
    if not isinstance(source, BuiltSource) and source.negatives != type(source).model_fields["negatives"].default:
        # Not an error: people often try a shipped pycode recipe on a file of rows by setting only source=jsonl.
        logger.warning(
            f"{source.name}: negatives={source.negatives} applies to pycode and documents only; these rows keep "
            "their own negatives"
        )
    if read.bad:
        logger.warning(f"{source.name}: {read.bad} bad rows skipped, the first: {read.first_bad}")
    if read.unknown_keys:
        shown = ", ".join(read.unknown_keys[:SHOWN_KEYS])
        more = f" and {len(read.unknown_keys) - SHOWN_KEYS} more" if len(read.unknown_keys) > SHOWN_KEYS else ""
        logger.warning(f"{source.name}: unknown {_keys(source)} ignored: {shown}{more}")
