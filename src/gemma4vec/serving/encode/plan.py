"""The plan of a bulk encoding, `plan.json`: what its files depend on, and where each shard begins in the input.

Whoever works in the folder, now or later, on this machine or another, has the same plan. What differs is refused by
name, so that one folder never has vectors of two kinds.
"""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from gemma4vec.data.rows.records import Record
from gemma4vec.errors import InputError
from gemma4vec.files import DiskError, atomic_write, disk_errors, machine_name
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.reading.json_values import JsonError, load_own_json
from gemma4vec.serving.encode.input_files import InputFiles, Place
from gemma4vec.serving.encode.input_rows import BadRow, GoodRow, read_rows

logger = logging.getLogger(__name__)

PLAN = "plan.json"
FORMAT = 1
ADVICE = "give the same options, or another folder"


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        identity: what the files depend on, as nested JSON values: input, encoding, model, versions.
        rows: number of rows of the input.
        rejected: number of those that are not encoded.
        characters: number of characters of the others' texts.
        places: where each shard begins.
    """

    identity: dict[str, Any]
    rows: int
    rejected: int
    characters: int
    places: tuple[Place, ...] = field(repr=False)

    @property
    def shard_rows(self) -> int:
        """Rows of a shard; the last one may have fewer."""
        return int(self.identity["encoding"]["shard_rows"])

    @property
    def dimension(self) -> int:
        """D, the number of dimensions that are stored."""
        return int(self.identity["encoding"]["dimension"])

    @property
    def queries(self) -> bool:
        """Whether the texts are queries."""
        return self.identity["encoding"]["input_type"] == "query"

    @property
    def file_format(self) -> str:
        """parquet, npy or lance."""
        return str(self.identity["encoding"]["format"])

    @property
    def dtype(self) -> str:
        """f32 or f16."""
        return str(self.identity["encoding"]["dtype"])

    def rows_of(self, shard: int) -> int:
        """Number of input rows of a shard."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)

    def read(self, files: InputFiles, shard: int) -> Iterator[GoodRow | BadRow]:
        """The rows of a shard, in order."""
        first = shard * self.shard_rows + 1
        records = islice(files.records(self.places[shard]), self.rows_of(shard))
        numbered = ((first + number, record) for number, (_, record) in enumerate(records))
        return read_rows(numbered, files.fields, titles=not self.queries)


def make_plan(files: InputFiles, identity: dict[str, Any], max_bad_share: float) -> Plan:
    """Read the whole input once and plan its shards. Nothing of a row is held.

    Raises:
        InputError: there is no row, or the share of rejected rows is above `max_bad_share`; names the first one.
    """
    size = int(identity["encoding"]["shard_rows"])
    titles = identity["encoding"]["input_type"] != "query"
    places: list[Place] = []
    rows = rejected = characters = 0
    first_bad: BadRow | None = None
    records = files.records()
    with ProgressBar("reading", "rows") as bar:
        while (first := next(records, None)) is not None:
            places.append(first[0])
            shard = ((rows + number, one) for number, one in enumerate(_chained(first[1], records, size), 1))
            for row in read_rows(shard, files.fields, titles=titles):
                rows += 1
                if isinstance(row, BadRow):
                    rejected += 1
                    first_bad = first_bad or row
                else:
                    characters += len(row.document.text) + len(row.document.title or "")
                if rows % 1000 == 0:
                    bar(rows, None)
    where = files.files[0] if len(files.files) == 1 else files.files[0].parent
    if not rows:
        raise InputError(f"{where}: has no row; there is nothing to encode")
    if first_bad is not None and (rejected > max_bad_share * rows or rejected == rows):
        raise InputError(
            f"{where}: {first_bad.place}: {first_bad.reason} ({rejected:,} of {rows:,} rows cannot be encoded, "
            f"{100 * max_bad_share:.4g}% are allowed); mend the rows, or allow a larger share with --max-bad-share"
        )
    return Plan(identity, rows, rejected, characters, tuple(places))


def _chained(first: Record, records: Iterator[tuple[Place, Record]], size: int) -> Iterator[Record]:
    """The records of a shard; the caller has read the first one."""
    yield first
    for _, record in islice(records, size - 1):
        yield record


def read_plan(out: Path) -> Plan | None:
    """The plan of a folder; None: it has none.

    Raises:
        InputError: it is damaged or of another version.
    """
    file = out / PLAN
    try:
        read = load_own_json(file)
        if read["format"] != FORMAT:
            raise InputError(f"{file} has format {read['format']!r}, this version reads {FORMAT}; use another folder")
        plan = Plan(
            {key: dict(read[key]) for key in ("input", "encoding", "model", "versions")},
            int(read["rows"]),
            int(read["rejected"]),
            int(read["characters"]),
            tuple(Place(*map(int, place)) for place in read["places"]),
        )
        if plan.shard_rows < 1 or plan.dimension < 1:
            raise ValueError("shard_rows and dimension are at least 1")
        _ = plan.queries, plan.file_format, plan.dtype  # a key that is missing is damage now, not later
        return plan
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}); check its permissions") from error
    except (JsonError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is damaged ({error}); encode into another folder") from error


def write_plan(out: Path, plan: Plan) -> Plan:
    """Write a plan unless another process has written one meanwhile; return the one that is there.

    Raises:
        InputError: the other one differs.
        DiskError: the folder cannot be written.
    """
    value = {
        "format": FORMAT,
        **plan.identity,
        "rows": plan.rows,
        "rejected": plan.rejected,
        "characters": plan.characters,
    }
    places = ",\n".join(json.dumps(place) for place in plan.places)
    text = json.dumps(value, indent=1, ensure_ascii=False).removesuffix("\n}") + f',\n "places": [\n{places}\n ]\n}}\n'
    file, own = out / PLAN, out / f".{PLAN}.{machine_name()}-{os.getpid()}.new.part"
    try:
        with atomic_write(own) as stream:
            stream.write(text)
        with disk_errors(file):
            try:
                os.link(own, file)  # fails where the file exists
            except FileExistsError:
                pass
            except OSError:  # a file system without links; two first processes would write equal plans
                if not file.exists():
                    os.replace(own, file)
    finally:
        own.unlink(missing_ok=True)
    found = read_plan(out)
    if found is None:
        raise DiskError(f"could not write {file}: it disappeared; is another command removing {out}?")
    check_same(found, plan.identity, out)
    return found


def check_same(found: Plan, identity: dict[str, Any], out: Path) -> None:
    """Refuse another plan.

    Raises:
        InputError: names what differs.
    """
    if found.identity["input"]["sha256"] != identity["input"]["sha256"]:
        raise InputError(
            f"{out} was planned for another input (SHA-256 {found.identity['input']['sha256'][:12]}..., now "
            f"{identity['input']['sha256'][:12]}...): the file has changed or is another one; restore it, or encode "
            "into another folder"
        )
    for part, name, there, here in _differences(found.identity, identity):
        raise InputError(f"{out} was planned with {part}.{name} = {there!r}, this command has {here!r}; {ADVICE}")


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[tuple[str, str, object, object]]:
    for part in ("encoding", "input", "model", "versions"):
        for name in dict.fromkeys((*wanted[part], *found[part])):
            there, here = found[part].get(name), wanted[part].get(name)
            if there != here:
                yield part, name, there, here
