"""Rows tokenized once and stored on disk, memory-mapped: a run of millions of rows starts within seconds.

The cache key covers the rows' contents, the tokenizer, the prompts and the limits. The tokens, and the hashes that
identify equal texts, are those that training would have computed from the texts.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from gemma4vec.data.batching.mixture import MixedRows, Part
from gemma4vec.data.rows.lazy_rows import as_lazy_rows
from gemma4vec.data.rows.row_store import StoredRows, open_or_write, write_store
from gemma4vec.data.rows.rows import Row
from gemma4vec.files import cache, sha256_text
from gemma4vec.model.tokenize.tokenizer import TextTokenizer
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document, Prompted, Prompts
from gemma4vec.text.text_hash import text_key

logger = logging.getLogger(__name__)

BLOCK = 512


def pretokenize_rows(
    rows: MixedRows,
    hashes: dict[str, str],
    tokenizer: TextTokenizer,
    prompts: Callable[[str], Prompts],
    *,
    query_tokens: int,
    document_tokens: int,
) -> MixedRows:
    """The same rows with tokens in place of texts, source by source.

    Args:
        rows: rows of one or several sources.
        hashes: source name -> hash of its rows' contents.
        tokenizer: tokenizes texts.
        prompts: source name -> its prompts.
        query_tokens: longest query, prompt and special tokens included.
        document_tokens: longest document.

    Raises:
        WorkError: the disk is full or the cache cannot be written.
    """
    identity = tokenizer_hash(tokenizer)
    limits = f"{query_tokens} {document_tokens}"
    parts: list[Part] = []
    for part in rows.parts:
        if as_lazy_rows(part.rows).tokenized:
            parts.append(part)  # its rows are tokens on disk already
            continue
        words = json.dumps(prompts(part.name).as_dict(), sort_keys=True)
        key = sha256_text(identity, words, limits, hashes[part.name])
        folder = cache() / "tokens" / sha256_text(part.name, identity, words, limits)[:24]

        def write(part: Part = part, folder: Path = folder, key: str = key) -> StoredRows:
            logger.info(f"{part.name}: tokenizing {len(part.rows):,} rows once, into {folder}")
            return _write(part, folder, key, tokenizer, prompts(part.name), query_tokens, document_tokens)

        parts.append(replace(part, rows=open_or_write(folder, key, write)))
    return MixedRows(parts, rows.one_source_batches, rows.one_task_batches)


def tokenizer_hash(tokenizer: TextTokenizer) -> str:
    """SHA-256 of what defines a tokenizer: vocabulary, merges, normalizer, special tokens, post-processor."""
    backend = tokenizer.hf_tokenizer.backend_tokenizer
    # The library stores the last call's truncation and padding in the tokenizer; they are not part of its identity.
    described = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    return sha256_text(
        json.dumps(described, sort_keys=True, ensure_ascii=False), str(tokenizer.hf_tokenizer.eos_token_id)
    )


def _write(
    part: Part, folder: Path, key: str, tokenizer: TextTokenizer, prompts: Prompts, query: int, document: int
) -> StoredRows:
    own = replace(tokenizer, counts=type(tokenizer.counts)())  # the tokenizer's own count training

    def rows() -> Iterator[Row]:
        every = iter(part.rows)
        while block := list(islice(every, BLOCK)):
            queries = [row.query for row in block]
            query_tokens = iter(_pretokenize(own, [prompts.for_query(text) for text in queries], queries, query))
            texts = [text for row in block for text in (*row.pos, *row.neg)]
            documents = iter(_pretokenize(own, [prompts.for_document(text) for text in texts], texts, document))
            for row in block:
                pos = [Document(next(documents)) for _ in row.pos]
                yield replace(row, query=next(query_tokens), pos=pos, neg=[Document(next(documents)) for _ in row.neg])

    return write_store(folder, rows(), {"key": key, "where": part.name})


def _pretokenize(
    tokenizer: TextTokenizer, prompted: Sequence[Prompted], texts: Sequence[str | Document], limit: int
) -> list[PretokenizedText]:
    tokens = tokenizer.encode(prompted, limit)
    return [PretokenizedText(one.ids, one.prompt, text_key(text)) for one, text in zip(tokens, texts, strict=True)]
