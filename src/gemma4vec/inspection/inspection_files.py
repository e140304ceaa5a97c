"""The files of an inspection, and the lock of their folder.

| file | contents |
|---|---|
| `inspection.json` | models, suite, halves, kinds, figures, advice |
| `slices.json` | the proposed slices and their status |
| `queries.parquet` | a row a query: half, scores (null where sealed), ranks, kinds (null where sealed), attributes |
| `judged.parquet` | a row a judged document: its rank to depth 1,000 (null where sealed or not found) |
| `documents.parquet` | a row a document: tokens, where it is cut, first ten of how many queries |
| `probes.json` | with --probes: each probe, and its figures in order |
| `layers.json` | with --layers: what each layer would score |
| `clusters.json` | with --clusters or --map: topics of the queries |
| `map.json`, `map.bin` | with --map: points in two dimensions (`topics/map.py`) |
"""

import contextlib
import fcntl
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.open_any_suite import opened_as
from gemma4vec.files import atomic_folder, disk_errors, write_json
from gemma4vec.inspection.attributes import ATTRIBUTES, Value
from gemma4vec.inspection.inspected import Inspection
from gemma4vec.inspection.kinds import failed, k_occurrence
from gemma4vec.inspection.sealed import DISCOVERY, SEALED
from gemma4vec.inspection.steps import code_version
from gemma4vec.inspection.topics.map import MAP_POINTS, MapPoints, read_map, write_points
from gemma4vec.ledger.environment import versions
from gemma4vec.ledger.ledger import now
from gemma4vec.reading.json_values import load_own_json

ABOUT, SLICES = "inspection.json", "slices.json"
QUERIES, JUDGED, DOCUMENTS = "queries.parquet", "judged.parquet", "documents.parquet"
FILES = {ABOUT, SLICES, QUERIES, JUDGED, DOCUMENTS}
PROBES, LAYERS, CLUSTERS, MAP = "probes.json", "layers.json", "clusters.json", "map.json"
OPTIONAL = {PROBES, LAYERS, CLUSTERS, MAP, MAP_POINTS}


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock an inspection's folder within a `with` block.

    Raises:
        InputError: another process holds it, or it has other files than an inspection.
    """
    if folder.exists() and (others := {path.name for path in folder.iterdir()} - FILES - OPTIONAL):
        raise InputError(f"{folder} has other files than an inspection ({sorted(others)[0]}); choose another --out")
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        stream = (folder.parent / f".{folder.name}.lock").open("w")
    with stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process inspects into {folder}; wait for it") from error
        yield


def write_inspection(found: Inspection, out: Path, how: Mapping[str, Any]) -> None:
    """Write the folder, all or nothing; `how`: the words by which the suite was opened, or none."""
    with atomic_folder(out) as folder:
        write_json(folder / ABOUT, finite(describe(found, how)))
        write_json(folder / SLICES, finite([one.as_json() for one in found.slices]))
        for name, table in ((QUERIES, _queries(found)), (JUDGED, _judged(found)), (DOCUMENTS, _documents(found))):
            pq.write_table(table, folder.absolute() / name, compression="zstd")
        for name, value in found.extras.items():
            header = write_points(folder, value) if isinstance(value, MapPoints) else value
            write_json(folder / name, finite(header))


def write_slices(folder: Path, slices: list[dict[str, Any]]) -> None:
    """Replace the slices of an inspection, atomically."""
    write_json(folder / SLICES, finite(slices))


def load_inspection(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read back `inspection.json` and `slices.json`.

    Raises:
        InputError: missing or damaged.
    """
    try:
        about, slices = load_own_json(folder / ABOUT), load_own_json(folder / SLICES)
        _check_fields(about, slices)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the inspection in {folder} is damaged ({reason}); inspect again") from error
    return about, slices


def _check_fields(about: Any, slices: Any) -> None:
    """Refuse JSON without what later commands read of it.

    Raises:
        ValueError: a field is missing or of another type.
    """
    if not isinstance(about, dict) or not isinstance(slices, list):
        raise ValueError("not an object and a list")
    sides = [about.get("model"), *([about["against"]] if about.get("against") is not None else [])]
    parts: list[tuple[Any, dict[str, type]]] = [
        (side, {"name": str, "fingerprint": str, "open": dict}) for side in sides
    ]
    parts += [(about.get("suite"), {"name": str, "fingerprint": str, "open": dict})]
    parts += [(about, {"metric": str, "steps": dict, "kinds": list, "figures": list, "advice": list, "notes": list})]
    parts += [(one, {"id": str, "rule": str, "view": str, "gap": float, "status": str}) for one in slices]
    for value, fields in parts:
        for name, kind in fields.items():
            if not isinstance(value, dict) or not isinstance(value.get(name), kind):
                raise ValueError(f"'{name}' is missing")
    if "against" not in about or not {"model", *(["against"] if about["against"] else [])} <= set(about["steps"]):
        raise ValueError("'against' or 'steps' is missing")


def load_columns(folder: Path) -> dict[str, list[Any]]:
    """Read back `queries.parquet` by columns.

    Raises:
        InputError: missing or damaged.
    """
    try:
        columns: dict[str, list[Any]] = pq.read_table(folder.absolute() / QUERIES).to_pydict()
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder / QUERIES} is damaged ({reason}); inspect again") from error
    if not {"half", "query_id"} <= set(columns):
        raise InputError(f"{folder / QUERIES} is damaged (columns are missing); inspect again")
    return columns


def load_extra(folder: Path, name: str) -> Any:
    """Read back a file that not every inspection has, such as `probes.json`; None if it was not asked for.

    Raises:
        InputError: damaged.
    """
    try:
        return load_own_json(folder / name) if (folder / name).is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / name} is damaged ({' '.join(str(error).split())[:200]}); inspect again") from error


def load_points(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Read back the map, header and columns; None if it was not asked for.

    Raises:
        InputError: damaged.
    """
    try:
        return read_map(folder / MAP_POINTS) if (folder / MAP_POINTS).is_file() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / MAP_POINTS} is damaged; inspect again") from error


def describe(found: Inspection, how: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of `inspection.json`."""
    open_N = found.open
    own_N = found.reading.values(found.metric)
    means = {found.subject.model.name: float(own_N[open_N].mean())}
    if found.other is not None and found.against is not None:
        means[found.against.model.name] = float(found.other.values(found.metric)[open_N].mean())
    again = dict(opened_as(str(how["spec"]), how.get("task"), how.get("mirror"))) if how else {}
    halves = {DISCOVERY: int(open_N.sum()), SEALED: int((~open_N).sum())}
    return {
        "model": found.subject.as_json(),
        "against": found.against.as_json() if found.against is not None else None,
        "suite": {"name": found.suite.name, "fingerprint": found.fingerprint, "open": again},
        "metric": found.metric,
        "queries": len(found.suite.queries),
        "documents": len(found.suite.corpus),
        "halves": halves if found.sealed is not None else None,
        "discovery_means": means,
        "failures": int((failed(found.reading) & open_N).sum()),
        "kinds": [one.as_json() for one in found.kinds],
        "figures": [one.as_json() for one in found.figures],
        "in_training": found.touched,
        "advice": [one.as_json() for one in found.advice],
        "notes": found.notes,
        "steps": found.steps,
        "code": code_version(),
        "versions": versions(),
        "created": now(),
    }


def finite(value: Any) -> Any:
    """Replace numbers that JSON lacks by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value


def _queries(found: Inspection) -> pa.Table:
    open_N, reading = found.open.tolist(), found.reading
    rows = range(len(open_N))

    def shown(values: Any) -> list[Any]:
        return [_plain(values[row]) if open_N[row] else None for row in rows]

    gold_N, top_N = reading.gold_rank(), reading.top[:, 0] if reading.top.shape[1] else np.full(len(open_N), -1)
    top_scores_N = reading.top_scores[:, 0] if reading.top.shape[1] else np.full(len(open_N), np.nan)
    columns: dict[str, Any] = {
        "task": [found.suite.name for _ in rows],
        "query_id": found.suite.query_ids,
        "half": [DISCOVERY if one else SEALED for one in open_N],
        **{str(name): pa.array(shown(reading.values(str(name))), pa.float64()) for name in reading.metrics},
    }
    if found.other is not None:
        columns["against"] = pa.array(shown(found.other.values(found.metric)), pa.float64())
        columns["against_gold_rank"] = pa.array(shown(_ranks(found.other.gold_rank())), pa.int64())
    columns |= {
        "gold_rank": pa.array(shown(_ranks(gold_N)), pa.int64()),
        "gold_score": pa.array(shown(reading.gold_score()), pa.float64()),
        "top1_doc": pa.array(shown([found.suite.corpus_ids[one] if one >= 0 else None for one in top_N]), pa.string()),
        "top1_score": pa.array(shown(top_scores_N), pa.float64()),
        "margin": pa.array(shown(reading.gold_score() - top_scores_N), pa.float64()),
        "kinds": pa.array(
            shown([[name for name, flag in found.flags.items() if flag[row]] for row in rows]), pa.list_(pa.string())
        ),
        **{name: _column(name, values) for name, values in found.columns.items()},
    }
    return pa.table(columns)


def _column(name: str, values: list[Value]) -> pa.Array:
    kinds = {"number": pa.float64(), "flag": pa.bool_(), "word": pa.string()}
    return pa.array(values, kinds[ATTRIBUTES[name].kind])


def _judged(found: Inspection) -> pa.Table:
    reading, open_N = found.reading, found.open
    shown_J = open_N[reading.query].tolist()
    ranks, scores = _ranks(reading.rank), reading.score.tolist()
    return pa.table(
        {
            "task": [found.suite.name] * len(shown_J),
            "query_id": [found.suite.query_ids[row] for row in reading.query.tolist()],
            "doc_id": [found.suite.corpus_ids[row] for row in reading.document.tolist()],
            "grade": pa.array(reading.grade.tolist(), pa.int64()),
            "rank": pa.array([one if ok else None for one, ok in zip(ranks, shown_J, strict=True)], pa.int64()),
            "score": pa.array([_plain(s) if ok else None for s, ok in zip(scores, shown_J, strict=True)], pa.float64()),
        }
    )


def _documents(found: Inspection) -> pa.Table:
    reading, documents = found.reading, len(found.suite.corpus)
    right = {
        (q, d)
        for q, d, g in zip(reading.query.tolist(), reading.document.tolist(), reading.grade.tolist(), strict=True)
        if g >= 1
    }
    wrong_M = np.zeros(documents, dtype=np.int64)
    for row in np.flatnonzero(found.open):
        for document in reading.top[row].tolist():
            wrong_M[document] += document >= 0 and (int(row), document) not in right
    tokens = [None if one < 0 else int(one) for one in found.tokens] if found.tokens is not None else [None] * documents
    limit = found.limit
    cut = [limit if one is not None and limit is not None and one > limit else None for one in tokens]
    return pa.table(
        {
            "doc_id": found.suite.corpus_ids,
            "tokens": pa.array(tokens, pa.int64()),
            "cut_at": pa.array(cut, pa.int64()),
            "k_occurrence": pa.array(k_occurrence(reading.top, documents).tolist(), pa.int64()),
            "wrong_top10": pa.array(wrong_M.tolist(), pa.int64()),
        }
    )


def _ranks(ranks: Any) -> list[int | None]:
    return [int(one) or None for one in ranks]


def _plain(value: Any) -> Any:
    """A value for a file; not a number becomes null."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and math.isnan(plain) else plain
