"""Building a vector store: from a corpus that is embedded here, or from the shards of `gemma4vec encode`.

Rows whose content is stored are not embedded again, so a killed build goes on where it was.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.serving.encode.plan import PLAN, Plan, read_plan
from gemma4vec.serving.encode.shard_files import find_damage, is_done, read_shard
from gemma4vec.serving.indexing.corpus_rows import CorpusRows
from gemma4vec.serving.search.store_index import fit_dimension
from gemma4vec.serving.store.filters import FieldType
from gemma4vec.serving.store.open_store import open_or_create, open_store
from gemma4vec.serving.store.recall_gate import HELD_OUT, build_and_check, check_index
from gemma4vec.serving.store.rows import Row, Vectors, make_rows
from gemma4vec.serving.store.search_store import add_rows
from gemma4vec.serving.store.store_meta import Gate, NoStoreError, StoreMeta
from gemma4vec.serving.store.vector_store import VectorStore
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

CHUNK = 512
_ROWS_OF_AN_INSERT = 8192
MOST_QUERIES = 2 * HELD_OUT


@dataclass(frozen=True)
class BuiltStore:
    """What a build did: rows in the store, rows embedded or read now, rows left out, and the gate's result."""

    location: str
    index: str
    rows: int
    added: int
    left_out: int
    gate: Gate | None

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        gate = None if self.gate is None else {**vars(self.gate), "passed": self.gate.passed}
        return {**vars(self), "gate": gate}


def build_store(
    location: str,
    source: CorpusRows | Path,
    embedder: TextEmbedder,
    *,
    index: str = "auto",
    queries: Sequence[str] | None = None,
    fresh: bool = False,
) -> BuiltStore:
    """Fill a store, index it, and compare the index with exact search.

    Args:
        location: see `store.open_store`.
        source: a corpus, or the output folder of `gemma4vec encode`.
        embedder: the model; of an encoded folder, the model that made it.
        index: kind of the index; "auto" lets the store choose.
        queries: texts of queries for the recall gate; without them stored vectors are the queries.
        fresh: drop an existing store first.

    Raises:
        InputError: a store or shards of another model, another dimension or other fields; an unfinished encoding; an
            index that the store cannot build.
        WorkError: a database that cannot be reached, a full disk, or a model whose vectors are not finite.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    fields: dict[str, FieldType] = {}
    plan = None
    if isinstance(source, Path):
        plan = _finished_plan(source, embedder)
        embedder = fit_dimension(embedder, plan.dimension)
        fields = {"tokens": "int", "truncated": "bool"} if plan.file_format != "npy" else {}
    else:
        fields = dict(source.fields)
    prompts = embedder.describe().get("prompts") or {}
    meta = StoreMeta(embedder.name, embedder.fingerprint, embedder.dimension, fields, dict(prompts))
    if fresh:
        _drop(location)
    store = open_or_create(location, meta)
    try:
        check_index(store, index)
        if plan is not None and isinstance(source, Path):
            added, left_out = _add_shards(store, source, plan), plan.rejected
        elif isinstance(source, CorpusRows):
            added, left_out = _add_corpus(store, source, embedder)
        if not store.count():
            raise InputError(f"{store.location}: the source has no row that can be indexed; check its fields")
        vectors_ND = None if not queries else embedder.encode_query(list(queries)[:MOST_QUERIES])
        with ProgressBar("index", "rows") as bar:
            gate = build_and_check(store, index, vectors_ND, progress=bar)
        return BuiltStore(store.location, store.meta.index, store.count(), added, left_out, gate)
    finally:
        store.close()


def _drop(location: str) -> None:
    try:
        store = open_store(location)
    except NoStoreError:
        return
    store.drop()


def _add_corpus(store: VectorStore, corpus: CorpusRows, embedder: TextEmbedder) -> tuple[int, int]:
    """Embed and add the rows that are not stored; return their number and that of rows left out."""
    added = seen = 0
    chunk: list[tuple[Row, Document]] = []
    with ProgressBar("embedding", "rows", final_line=True) as bar:

        def add_chunk() -> int:
            stored = store.contents([row.id for row, _ in chunk])
            new = [(row, text) for row, text in chunk if stored.get(row.id) != row.content]
            if new:
                vectors = np.asarray(embedder.encode_document([text for _, text in new]), np.float32)
                add_rows(store, make_rows([row for row, _ in new], vectors, store.meta.fields))
            return len(new)

        for pair in corpus:
            chunk.append(pair)
            seen += 1
            if len(chunk) == CHUNK:
                added += add_chunk()
                chunk.clear()
                bar(seen, None)
        added += add_chunk()
        bar(seen, seen)
    if seen > added:
        logger.info(f"{seen - added:,} rows were stored already")
    if corpus.rejected:
        logger.warning(f"{corpus.rejected:,} of {seen + corpus.rejected:,} rows were left out")
    return added, corpus.rejected


def _finished_plan(folder: Path, embedder: TextEmbedder) -> Plan:
    """Return the plan of an encoded folder that this model made, whole."""
    plan = read_plan(folder)
    if plan is None:
        raise InputError(f"{folder} has no {PLAN}; name a corpus, or an output folder of `gemma4vec encode`")
    model = plan.identity["model"]
    if model["fingerprint"] != embedder.fingerprint:
        raise InputError(
            f"{folder} was encoded by another model ({model['name']}, {str(model['fingerprint'])[:12]}, not "
            f"{embedder.fingerprint[:12]}); use that model"
        )
    if plan.queries:
        raise InputError(f"{folder} holds vectors of queries; encode the corpus with --input-type document")
    missing = [shard for shard in range(len(plan.places)) if not is_done(folder, shard)]
    if missing:
        raise InputError(
            f"{folder} is not finished ({len(missing):,} of {len(plan.places):,} shards are missing); run "
            "`gemma4vec encode` again"
        )
    return plan


def _add_shards(store: VectorStore, folder: Path, plan: Plan) -> int:
    """Add the vectors of all shards; return their number."""
    added = 0
    with ProgressBar("adding", "shards") as bar:
        for shard in range(len(plan.places)):
            damage = find_damage(folder, plan, shard)
            if damage is not None:
                raise InputError(f"{damage}; run `gemma4vec encode` again, which makes the shard a second time")
            ids, vectors_ND, fields = _read_shard(folder, plan, shard)
            vectors_ND = np.asarray(vectors_ND, np.float32)
            rows = [
                Row(identity, None, "", "", {name: values[place] for name, values in fields.items()})
                for place, identity in enumerate(ids)
            ]
            for start in range(0, len(rows), _ROWS_OF_AN_INSERT):
                end = start + _ROWS_OF_AN_INSERT
                add_rows(store, make_rows(rows[start:end], vectors_ND[start:end], store.meta.fields))
            added += len(rows)
            bar(shard + 1, len(plan.places))
    return added


def _read_shard(folder: Path, plan: Plan, shard: int) -> tuple[list[str], Vectors, dict[str, list[Any]]]:
    """Return ids, vectors and scalar fields of a shard."""
    ids, vectors_ND = read_shard(folder, plan, shard)
    if plan.file_format == "npy":
        return ids, vectors_ND, {}
    import pyarrow.parquet

    from gemma4vec.serving.encode.shard_files import VECTORS, shard_name

    path = folder.absolute() / VECTORS / f"{shard_name(shard)}.parquet"
    table = pyarrow.parquet.read_table(path, columns=["tokens", "truncated"])
    return ids, vectors_ND, {name: table[name].to_pylist() for name in table.column_names}
