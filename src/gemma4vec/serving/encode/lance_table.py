"""One Lance table of all shards, for LanceDB: built when the last shard is done, from the shards' own files.

Lance gives its files random names, so two builds differ in their bytes. Their contents are equal: the hash of ids and
vectors in order, which is stored next to the table, and which `--check` computes again.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import atomic_folder, write_json
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.serving.encode.plan import Plan
from gemma4vec.serving.encode.shard_files import VECTORS, arrow_schema, shard_name, vectors_of

if TYPE_CHECKING:
    import pyarrow

FOLDER, TABLE, CONTENT = "lance", "vectors", "content.json"
BLOCK = 8_192


def check_lancedb() -> None:
    """Refuse the format before the work where LanceDB is missing.

    Raises:
        InputError: it is.
    """
    try:
        import lancedb  # noqa: F401
    except ImportError as error:
        raise InputError("--format lance needs LanceDB; pip install 'gemma4vec[store]'") from error


def is_built(out: Path) -> bool:
    """Whether the table is there, whole."""
    return (out / FOLDER / CONTENT).is_file()


def build_table(out: Path, plan: Plan) -> None:
    """Write the table `vectors` in `OUT/lance`, shard by shard; all or nothing.

    Raises:
        InputError: LanceDB is missing.
        WorkError: the disk is full, or LanceDB refuses.
    """
    check_lancedb()
    import lancedb
    import pyarrow
    import pyarrow.parquet

    digest, rows = hashlib.sha256(), 0

    def blocks() -> Iterator["pyarrow.RecordBatch"]:
        nonlocal rows
        for shard in range(len(plan.places)):
            table = pyarrow.parquet.read_table(out.absolute() / VECTORS / f"{shard_name(shard)}.parquet")
            _add(digest, table, plan)
            rows += table.num_rows
            yield from table.to_batches()

    with atomic_folder(out / FOLDER) as temporary:
        try:
            reader = pyarrow.RecordBatchReader.from_batches(arrow_schema(plan), blocks())
            lancedb.connect(str(temporary)).create_table(TABLE, data=reader)
        except (RuntimeError, ValueError, pyarrow.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise WorkError(f"LanceDB could not write {out / FOLDER}: {reason}; is the disk full?") from error
        write_json(temporary / CONTENT, {"rows": rows, "sha256": digest.hexdigest()})


def find_table_damage(out: Path, plan: Plan) -> str | None:
    """What is wrong with the table's contents; None: nothing."""
    check_lancedb()
    import lancedb
    import pyarrow

    try:
        said = load_own_json(out / FOLDER / CONTENT)
        digest, rows = hashlib.sha256(), 0
        for block in lancedb.connect(str(out / FOLDER)).open_table(TABLE).search().to_batches(BLOCK):
            table = pyarrow.Table.from_batches([block])
            _add(digest, table, plan)
            rows += table.num_rows
    except Exception as error:  # LanceDB raises many types
        return f"{out / FOLDER} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if rows != said["rows"] or digest.hexdigest() != said["sha256"]:
        return f"{out / FOLDER} holds other ids or vectors than the shards"
    return None


def _add(digest: Any, table: "pyarrow.Table", plan: Plan) -> None:
    """Add rows to the hash of a table's contents; how rows are divided into blocks does not matter."""
    vectors_ND = vectors_of(table, plan)
    for key, vector_D in zip(table["id"].to_pylist(), vectors_ND, strict=True):
        encoded = key.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded + vector_D.tobytes())
