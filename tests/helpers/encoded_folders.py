"""Inputs and outputs of bulk encodings for tests."""

import hashlib
import json
from pathlib import Path


def corpus(count, **changes):
    """Rows with ids, texts of several lengths, and a title for every third; `changes` replaces rows by number."""
    rows = [
        {"id": f"d{i}", "text": f"text {i} " + "word " * (i % 4), "title": f"title {i}" if i % 3 == 0 else None}
        for i in range(count)
    ]
    for name, row in changes.items():
        rows[int(name.removeprefix("row"))] = row
    return rows


def write_corpus(path: Path, rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sums(out: Path) -> dict[str, str]:
    """SHA-256 of every file of an output folder, leases excepted."""
    return {
        str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(out.rglob("*"))
        if file.is_file() and "leases" not in file.parts
    }
