"""Odd files: bytes, structure and kind of file, by format."""

import io
import json
import sqlite3
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import yaml

from fuzzing import odd_values
from fuzzing.inputs import Change, Json

INSERTED = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\r\n", b"\n\n", b"\x0c", b"\x0b", b"\x1c",
    b"\xe2\x80\xa8", b"\xc2\x85", b"\xfe\xff", b"\xff\xfe", b"\x1b[2J", b"\t", b'"', b"'", b"\\", b"{", b"}", b"[",
    b"]", b",", b":", b"&a *a", b"!!python/object:os.system ", b"\xf0\x9f\x92\xa9", b"\xf4\x90\x80\x80",
    b"\xc0\x80", b" ", b"NaN", b"-", b"# ", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04",
)  # fmt: skip
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "cp1252", "utf-8-sig", "utf-7")


def changes(path: Path, name: str, draw: Random, working: bool = False) -> list[Change]:
    """What to change so that the file `name` of the place is odd; `path` is where it is now."""
    how = draw.random()
    if how < 0.12:
        return _kind_of_file(name, draw)
    content = path.read_bytes()
    structure = STRUCTURES.get(format_of(name))
    if structure is not None and how < 0.7:
        return [Change("write", name, structure(content, draw, working))]
    return [Change("write", name, odd_bytes(content, draw))]


def format_of(name: str) -> str:
    """The file's format, by its name."""
    suffix = Path(name.removesuffix(".gz")).suffix.lstrip(".")
    known = {
        "yml": "yaml",
        "csv": "table",
        "tsv": "table",
        "txt": "lines",
        "log": "lines",
        "sqlite3": "sqlite",
        "db": "sqlite",
    }
    return known.get(suffix, suffix)


def _kind_of_file(name: str, draw: Random) -> list[Change]:
    link = Change("link", name, target=Path(name).name)
    choices: list[list[Change]] = [
        [Change("remove", name)],
        [Change("write", name)],
        [Change("folder", name)],
        [Change("mode", name, mode=0)],
        [link],
        [Change("link", name, target="nowhere")],
        [Change("link", name, target=".")],
        [Change("write", name, draw.choice(INSERTED))],
        [Change("link", name, target="/dev/null")],
    ]
    return draw.choice(choices)


def odd_bytes(content: bytes, draw: Random) -> bytes:
    """Bytes with one to three changes that know nothing of the format."""
    made = content
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        made = _odd_bytes(made, draw)
    return made


def _odd_bytes(content: bytes, draw: Random) -> bytes:
    size = len(content)
    # Beginnings decide how a file is read, so they are changed more often.
    at = draw.randrange(min(size, 64 if draw.random() < 0.4 else size) + 1)
    how = draw.randrange(9)
    if how == 0:
        return content[:at]
    if how == 1:
        return content[:at] + draw.choice(INSERTED) + content[at:]
    if how == 2 and size:
        at = min(at, size - 1)
        return content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
    if how == 3 and size:
        return content[:at] + content[at + draw.randrange(1, 1 + max(size // 4, 1)) :]
    if how == 4:
        end = min(size, at + draw.randrange(1, 200))
        return content[:end] + content[at:end] + content[end:]
    if how == 5:
        try:
            return content.decode("utf-8").encode(draw.choice(ENCODINGS), "replace")
        except UnicodeDecodeError:
            return content[::-1]
    if how == 6:
        return content.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\xe2\x80\xa8", b"\n\n", b"")))
    if how == 7:
        return content[:at] + draw.randbytes(draw.randrange(1, 16)) + content[at:]
    return draw.choice((b"\xef\xbb\xbf" + content, content.rstrip(b"\n"), content + b"\x00", content + content))


def _json(content: bytes, draw: Random, working: bool) -> bytes:
    tree: Json = json.loads(content)
    return odd_values.as_bytes(odd_values.as_json(odd_values.changed(tree, draw, working), draw, indent=2))


def _yaml(content: bytes, draw: Random, working: bool) -> bytes:
    if draw.random() < 0.25:
        return _yaml_text(content.decode("utf-8"), draw).encode("utf-8", "surrogatepass")
    tree = odd_values.changed(yaml.safe_load(content), draw, working)
    if draw.random() < 0.5:
        return odd_values.as_bytes(odd_values.as_json(tree, draw))
    return odd_values.as_bytes(yaml.safe_dump(tree, allow_unicode=draw.random() < 0.5))


def _yaml_text(text: str, draw: Random) -> str:
    """What only YAML's text has: aliases, tags, merge keys, keys twice, several documents."""
    lines = text.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [" + ", ".join([f"*{old}"] * 9) + "]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    choices: list[Callable[[], str]] = [
        lambda: "".join([*lines[:at], lines[at], lines[at], *lines[at + 1 :]]),
        lambda: text + bomb,
        lambda: text + "loop: &loop [*loop]\n",
        lambda: text + "loop: &loop {a: *loop}\n",
        lambda: text + "<<: *missing\n",
        lambda: text + "<<: [1]\n",
        lambda: text + "? [a, b]\n: c\n",
        lambda: text + "? {a: b}\n: c\n",
        lambda: text + "1: a\nnull: b\n2024-01-01: c\n.nan: d\ntrue: e\n",
        lambda: "---\n" + text + "---\n" + text,
        lambda: "%YAML 9.9\n---\n" + text,
        lambda: text.replace("  ", "\t"),
        lambda: text + "deep: " + odd_values.nested(draw.choice((60, odd_values.DEEP)), draw.random() < 0.5) + "\n",
        lambda: "".join([*lines[:at], lines[at].replace(": ", ": " + draw.choice(TAGS), 1), *lines[at + 1 :]]),
        lambda: "".join(lines[:at] + lines[at + 1 :]),
        lambda: "".join([*lines[:at], " " + lines[at], *lines[at + 1 :]]),
        lambda: "- " + text.replace("\n", "\n  "),
        lambda: text + 'name: "\\ud800"\n',
        lambda: text + "name: " + "9" * 5000 + "\n",
    ]
    return draw.choice(choices)()


TAGS = (
    "!!python/object/apply:os.system ", "!!int ", "!!float ", "!!binary ", "!!timestamp ", "!!set ", "!!omap ",
    "!!pairs ", "!x ", "&x ", "*x ", "| ", "> ", "!!bool ", "!!null ", "!!str ", "!!merge ", "!<tag:> ", "@", "`",
    "% ",
)  # fmt: skip


def _jsonl(content: bytes, draw: Random, working: bool) -> bytes:
    packed = content[:2] == b"\x1f\x8b"
    if packed:
        import gzip

        content = gzip.decompress(content)
    lines = content.splitlines()
    at = draw.randrange(max(len(lines), 1))
    how = draw.random()
    if not lines or how < 0.1:
        lines.insert(at, odd_values.as_bytes(odd_values.as_json(odd_values.value(draw), draw)))
    elif how < 0.7:
        tree: Json = json.loads(lines[at])
        lines[at] = odd_values.as_bytes(odd_values.as_json(odd_values.changed(tree, draw, working), draw)).replace(
            b"\n", b" "
        )
    elif how < 0.75:
        lines = [lines[at]] * len(lines)
    elif how < 0.8:
        lines = lines[:1]
    elif how < 0.85:
        lines[at] += lines[at]
    elif how < 0.9:
        del lines[at]
    else:
        lines.insert(
            at,
            draw.choice((b"", b"null", b"[]", b"{}", b"1", b'"a"', b"\x0c", b"not json", b"NaN", b"{", b"\xff", b" ")),
        )
    made = b"\n".join(lines) + b"\n"
    if packed:
        import gzip

        made = gzip.compress(made, mtime=0)
        return made if draw.random() < 0.6 else odd_bytes(made, draw)
    return made


def _table(content: bytes, draw: Random, working: bool) -> bytes:
    text = content.decode("utf-8")
    separator = "\t" if "\t" in text else ","
    rows = [line.split(separator) for line in text.splitlines()]
    at = 0 if draw.random() < 0.3 else draw.randrange(len(rows))
    column = draw.randrange(len(rows[at]))
    odd = str(odd_values.scalar(draw))
    choices: list[Callable[[], None]] = [
        lambda: rows[at].__setitem__(column, odd),
        lambda: rows[at].__setitem__(column, '"' + odd),
        lambda: rows[at].append(odd),
        lambda: rows[at].insert(0, odd),
        lambda: rows[at].__delitem__(column),
        lambda: rows.insert(at, list(rows[at])),
        lambda: rows.insert(at, []),
        lambda: rows.__delitem__(at),
        lambda: rows[at].__setitem__(column, rows[at][0]),
        lambda: rows.__delitem__(slice(1, None)),
    ]
    draw.choice(choices)()
    return odd_values.as_bytes("".join(separator.join(row) + "\n" for row in rows))


def _lines(content: bytes, draw: Random, working: bool) -> bytes:
    lines = content.split(b"\n")
    at = draw.randrange(len(lines))
    lines[at] = draw.choice(
        (odd_values.as_bytes(str(odd_values.scalar(draw))), b"", lines[at] * 2, b"\x00" + lines[at])
    )
    return b"\n".join(lines)


def _safetensors(content: bytes, draw: Random, working: bool) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header: Json = json.loads(content[8 : 8 + length])
    made = odd_values.as_bytes(odd_values.as_json(odd_values.changed(header, draw), draw))
    said = draw.choice((0, 1, 2**40, 2**63, len(made) + 1)) if draw.random() < 0.15 else len(made)
    return struct.pack("<Q", said) + made + content[8 + length :]


def _sqlite(content: bytes, draw: Random, working: bool) -> bytes:
    """A table, a view or cells of it changed by SQL."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "changed.sqlite"
        file.write_bytes(content)
        connection = sqlite3.connect(file)
        tables = [
            row[0]
            for row in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
            )
        ]
        views = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")]
        triggers = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        table = draw.choice(tables)
        column = draw.choice([row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')])
        odd = odd_values.scalar(draw)
        cell: object = draw.choice((None, b"\xff\x00", str(odd).encode("utf-8", "replace").decode(), 1e300, 2**62))
        for trigger in triggers:
            connection.execute(f'DROP TRIGGER "{trigger}"')
        statements: list[tuple[str, tuple[object, ...]]] = [
            (f'UPDATE "{table}" SET "{column}" = ?', (cell,)),
            (f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = (SELECT max(rowid) FROM "{table}")', (cell,)),
            (f'DELETE FROM "{table}"', ()),
            (f'DROP TABLE "{table}"', ()),
            (f'ALTER TABLE "{table}" RENAME TO "odd name"', ()),
            (f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "odd column"', ()),
            (f'ALTER TABLE "{table}" ADD COLUMN "another"', ()),
            (f"PRAGMA user_version = {draw.choice((0, 1, 2, 99, 2147483647))}", ()),
            ("PRAGMA application_id = 7", ()),
            *((f'DROP VIEW "{view}"', ()) for view in views[:2]),
        ]
        for statement, values in draw.sample(statements, draw.choice((1, 1, 2))):
            try:
                connection.execute(statement, values)
                connection.commit()
            except sqlite3.Error:
                continue  # a constraint forbids this cell; the other change remains
        connection.close()
        return file.read_bytes()


def _parquet(content: bytes, draw: Random, working: bool) -> bytes:
    """Columns of other types, doubled, missing, empty."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(content))
    names, columns = list(table.column_names), list(table.columns)
    at = draw.randrange(len(names))
    rows = table.num_rows
    others = (
        pyarrow.nulls(rows), pyarrow.array([draw.choice((1, 2**62))] * rows), pyarrow.array([float("nan")] * rows),
        pyarrow.array([b"\xff"] * rows), pyarrow.array([["a", None]] * rows),
        pyarrow.array([{"text": "a", "title": None}] * rows), pyarrow.array([""] * rows),
        pyarrow.array([[]] * rows), pyarrow.array(["a", None] * rows)[:rows], pyarrow.array([True] * rows),
        pyarrow.array(["x"] * rows).dictionary_encode(), pyarrow.array([[[1.0]]] * rows),
        pyarrow.array([0] * rows, pyarrow.timestamp("s")), pyarrow.array(["\u2028\x00\x0c"] * rows),
    )  # fmt: skip
    how = draw.random()
    if how < 0.55:
        columns[at] = draw.choice(others)
    elif how < 0.65:
        names.append(names[at])
        columns.append(columns[at])
    elif how < 0.75:
        del names[at], columns[at]
    elif how < 0.85:
        names[at] = str(odd_values.scalar(draw)).encode("utf-8", "replace").decode()
    elif how < 0.93:
        columns = [column.slice(0, 0) for column in columns]
    else:
        columns[at] = columns[at].take(pyarrow.array([0] * rows)) if rows else columns[at]
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=names), stream)
    return stream.getvalue()


def _npy(content: bytes, draw: Random, working: bool) -> bytes:
    """Another type, shape or value."""
    import numpy

    before = numpy.load(io.BytesIO(content))
    choices: list[Callable[[], object]] = [
        lambda: before[:0],
        lambda: before[:-1],
        lambda: before.reshape(-1),
        lambda: before[None],
        lambda: before.astype("float64"),
        lambda: before.astype("int8"),
        lambda: before.astype("complex64"),
        lambda: numpy.full_like(before, -1),
        lambda: numpy.zeros_like(before),
        lambda: (
            (before * 0 + 1e38).astype(before.dtype) if before.dtype.kind == "f" else before.astype(numpy.int64) + 2**40
        ),
        lambda: (before.astype("float64") * numpy.nan).astype("float32"),
        lambda: numpy.array(3.0),
        lambda: numpy.array(["a", "b"]),
        lambda: numpy.array([{"a": 1}, None], dtype=object),
        lambda: numpy.asfortranarray(before),
        lambda: before.astype(before.dtype.newbyteorder()),
        lambda: before[..., :1],
    ]
    stream = io.BytesIO()
    numpy.save(stream, numpy.asarray(draw.choice(choices)()), allow_pickle=True)
    return stream.getvalue()


STRUCTURES: dict[str, Callable[[bytes, Random, bool], bytes]] = {
    "json": _json,
    "yaml": _yaml,
    "jsonl": _jsonl,
    "table": _table,
    "lines": _lines,
    "safetensors": _safetensors,
    "sqlite": _sqlite,
    "parquet": _parquet,
    "npy": _npy,
}
