"""Sources of training rows by name, as a recipe's `data` part gives them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.data.pycode import load_or_build_pycode
from gemma4vec.data.rows import Row, RowsRead, content_hash, read_rows
from gemma4vec.data.texts import TextsRead, read_texts
from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.recipe.schema import Source


@dataclass
class Loaded:
    """The rows and plain texts of a stage's sources, one after the other.

    Attributes:
        rows: all rows.
        texts: all plain texts, which belong to no row.
        sources: name -> {"path", "rows", "bad_rows", "content_hash", "counts"}; goes into the manifest.
        dev_suite: folder of the first dev suite that a source brings, if any.
        test_suite: folder of the first test suite that a source brings, if any.
    """

    rows: list[Row] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    dev_suite: Path | None = None
    test_suite: Path | None = None


def load_sources(sources: Sequence[Source], say: Callable[[str], None]) -> Loaded:
    """Read every source of a stage.

    Raises:
        InputError: two sources of one name, a file that cannot be read, more bad rows than allowed.
    """
    loaded = Loaded()
    for source in sources:
        if source.name in loaded.sources:
            raise InputError(f"data: two sources are named {source.name!r}; give each its own name")
        path = Path(source.path).expanduser() if source.path else None
        if source.source == "pycode":
            built = load_or_build_pycode(home() / "data", folder=path, negatives=source.negatives, progress=say)
            loaded.dev_suite = loaded.dev_suite or built.dev
            loaded.test_suite = loaded.test_suite or built.test
            path = built.train
        assert path is not None
        read: RowsRead | TextsRead
        if source.source == "text":
            read = read_texts(path, source.max_bad_share)
            texts = read.texts[: source.max_rows]
            loaded.texts += texts
            rows = [Row(text, []) for text in texts]  # as the hash and the count know them
        else:
            read = read_rows(path, source.max_bad_share)
            rows = read.rows[: source.max_rows]
            loaded.rows += rows
        loaded.sources[source.name] = {
            "source": source.source,
            "path": str(path),
            "rows": len(rows),
            "bad_rows": len(read.bad),
            "content_hash": content_hash(rows),
            "counts": dict(read.counts),
        }
        if read.bad:
            say(f"{source.name}: {len(read.bad)} bad rows left out, the first: {read.bad[0]}")
        if isinstance(read, RowsRead) and read.unknown_keys:
            say(f"{source.name}: unknown keys in rows left out: {', '.join(sorted(read.unknown_keys))}")
    return loaded
