"""What `inversion.py` trains and measures on, made of cleaned rows: texts, triplets, a suite to walk on, dev samples.

The files are of the published kinds (a text a line, a database of queries) where rows can be brought into them.
"""

import gzip
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.inverter.decoder_folder import read_facts
from gemma4vec.model.inverter.frame import DecoderFrame
from gemma4vec.model.tokenize.tokenizer import load_tokenizer
from gemma4vec.text.text_hash import words_key

Found = dict[str, Any]
# Longest document of the suite to walk on, and longest positive that is a paraphrase.
DOCUMENT_CHARACTERS, PARAPHRASE_WORDS = 1_000, 30


def read_rows(file: Path) -> Iterator[Found]:
    """The rows of a `.jsonl.gz` file."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def one_line(text: str) -> str:
    """A text without line breaks, for files with a text a line."""
    return " ".join(text.split())


def text_of(document: Any) -> str:
    """The text of a positive or negative, which may have a title."""
    return one_line(document if isinstance(document, str) else document["text"])


def draw(items: list[Any], most: int, seed: int = 0) -> list[Any]:
    """At most `most` of them at random, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(items))[:most]
    return [items[place] for place in sorted(chosen.tolist())]


def write_lines(file: Path, lines: Iterable[str]) -> Path:
    """A text a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def write_texts(clean: Path, out: Path, plan: Found) -> dict[str, int]:
    """`texts/NAME.txt`: each source's different queries of at most `text_tokens` tokens; their numbers."""
    tokenizer = load_tokenizer(resolve_base(plan["base"]).path, append_eos=True)
    longest, prefix = plan["text_tokens"], plan["prefix_tokens"]
    frame = DecoderFrame.of(tokenizer, prefix, 1 + prefix + longest)
    seen: set[str] = set()
    counts = {}
    for name in plan["weights"]:
        found = []
        for row in read_rows(clean / f"{name}.jsonl.gz"):
            text = one_line(row["query"])
            key = words_key(text)
            if text and key not in seen:
                seen.add(key)
                found.append(text)
        lengths = [len(ids) for ids in frame.read(tokenizer, found)] if found else []
        short = [text for text, length in zip(found, lengths, strict=True) if length <= longest]
        chosen = draw(short, plan["texts_of_a_source"])
        write_lines(out / "texts" / f"{name}.txt", chosen)
        counts[name] = len(chosen)
    return counts


def all_texts(out: Path, plan: Found) -> list[str]:
    """The texts of all sources."""
    return [
        line
        for name in plan["weights"]
        for line in (out / "texts" / f"{name}.txt").read_text(encoding="utf-8").split("\n")
        if line
    ]


def write_phase_files(clean: Path, out: Path, plan: Found) -> dict[str, int]:
    """`text.txt` (sentences of documents), `queries.db`, and rows of paraphrases to mine negatives for."""
    sentences: dict[str, None] = {}
    for name in plan["weights"]:
        rows = draw(list(read_rows(clean / f"{name}.jsonl.gz")), plan["sentences"])
        for row in rows:
            first = text_of(row["pos"][0]).split(". ")[0]
            if 4 <= len(first.split()) <= PARAPHRASE_WORDS:
                sentences.setdefault(first)
    chosen = draw(list(sentences), plan["sentences"])
    write_lines(out / "text.txt", chosen)
    queries = all_texts(out, plan)
    database = out / "queries.db"
    database.unlink(missing_ok=True)
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE queries (query TEXT)")
        connection.executemany("INSERT INTO queries VALUES (?)", [(query,) for query in queries])
    connection.close()
    pairs = []
    for name in plan["paraphrases"]:
        found = [
            {"query": one_line(row["query"]), "pos": [text_of(row["pos"][0])]}
            for row in read_rows(clean / f"{name}.jsonl.gz")
            if len(text_of(row["pos"][0]).split()) <= PARAPHRASE_WORDS
        ]
        pairs += draw(found, plan["texts_of_a_source"])
    write_lines(out / "paraphrases.jsonl", map(json.dumps, pairs))
    return {"sentences": len(chosen), "queries": len(queries), "paraphrases": len(pairs)}


def write_walk_suite(clean: Path, out: Path, plan: Found) -> dict[str, int]:
    """`walk/`: a dev suite of training rows, whose queries may be walked; documents of all rows that are drawn."""
    rows = [
        row
        for name in plan["weights"]
        for row in draw(list(read_rows(clean / f"{name}.jsonl.gz")), plan["walk"]["documents"] // len(plan["weights"]))
    ]
    texts = list(dict.fromkeys(text_of(row["pos"][0])[:DOCUMENT_CHARACTERS] for row in rows))
    ids = {text: f"d{place}" for place, text in enumerate(texts)}
    known = {words_key(text) for text in all_texts(out, plan)}
    short = [row for row in rows if words_key(one_line(row["query"])) in known]
    walked = draw(list({words_key(row["query"]): row for row in short}.values()), plan["walk"]["queries"], seed=1)
    folder = out / "walk"
    write_lines(folder / "corpus.jsonl", (json.dumps({"_id": key, "text": text}) for text, key in ids.items()))
    queries = (json.dumps({"_id": f"q{place}", "text": row["query"]}) for place, row in enumerate(walked))
    write_lines(folder / "queries.jsonl", queries)
    judged = [f"q{n}\t{ids[text_of(row['pos'][0])[:DOCUMENT_CHARACTERS]]}\t1" for n, row in enumerate(walked)]
    write_lines(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", *judged])
    return {"queries": len(walked), "documents": len(texts)}


def write_samples(data: Path, out: Path, plan: Found) -> dict[str, int]:
    """`samples/NAME`: samples of the dev suites for walks; their numbers of queries."""
    counts = {}
    for one in plan["dev"]:
        suite = open_suite(str(data / "retrieval" / one["suite"]))
        if not isinstance(suite, RetrievalSuite):
            raise InputError(f"{one['suite']} is no retrieval suite; name a folder in BEIR format")
        sizes = plan["fanout"]
        sample = sample_suite(suite, sizes["queries"], sizes["documents"])
        write_suite(out / "samples" / one["suite"], sample)
        counts[one["suite"]] = len(sample.queries)
    return counts


def held_out_files(out: Path, plan: Found, decoder: Path, each: int) -> list[Path]:
    """A file with `each` texts that a decoder has never seen, for each source that has enough for figures of its own.

    Raises:
        InputError: no source has so many.
    """
    hashes = set(read_facts(decoder).held_out)
    files = []
    for name in plan["weights"]:
        lines = (out / "texts" / f"{name}.txt").read_text(encoding="utf-8").split("\n")
        found = [line for line in lines if line and words_key(line) in hashes]
        if len(found) >= plan["least_held_out"]:
            files.append(write_lines(out / "held_out" / str(each) / f"{name}.txt", draw(found, each)))
    if not files:
        least = plan["least_held_out"]
        raise InputError(f"no source has {least} texts that {decoder} has not seen; set the plan's held_out higher")
    return files
