"""Retrieval suites: benchmarks as folders in BEIR's layout (Thakur et al., 2021).

A folder has `corpus.jsonl` {_id, title, text}, `queries.jsonl` {_id, text}, and `qrels/test.tsv` (a header, then
query-id, corpus-id, score). An optional `suite.yaml` sets `name`, `role` (dev or final), `kind` (retrieval or
compact-retrieval), `metric` (the main metric), `exclude_identical_ids`, `tokens` (text or code), `unknown_ids` (error
or drop) and `documents_in_training`. The JSONL files may be gzipped. A document of the corpus may have a `unit`: the id
of the document that stands for it where several are parts of one.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from gemma4vec.data.rows.jsonl import json_type, read_lines, write_lines
from gemma4vec.data.rows.judgments import parse_id, read_judgments
from gemma4vec.data.rows.rows import clean_text, clean_title
from gemma4vec.data.suites.kinds import RETRIEVAL_KINDS, Kind, Role
from gemma4vec.data.suites.memory_check import check_corpus_fits
from gemma4vec.data.suites.suite import COMMON_OPTIONS
from gemma4vec.data.suites.texts import SuiteTexts
from gemma4vec.errors import InputError
from gemma4vec.files import atomic_folder, sha256_text
from gemma4vec.ledger.suite_contents import Halves
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.reading.names import as_name, check_name
from gemma4vec.reading.yaml_values import parse_yaml, read_text
from gemma4vec.text.prompts import Document

_BREAKS = re.compile(r"[\t\n\r]")

# Of a sample on disk: {"name", "fingerprint"} of the whole suite, and its halves as "halves_of" and "sealed_from".
SAMPLED_FROM = "sampled_from.json"
OPTIONS: dict[str, tuple[object, ...] | type] = {
    "name": str,
    "role": ("dev", "final", None),
    "kind": RETRIEVAL_KINDS,
    "metric": str,
    "exclude_identical_ids": (True, False),
    "tokens": ("text", "code"),
    "unknown_ids": ("error", "drop"),
    "documents_in_training": (True, False),
}


@dataclass
class RetrievalSuite:
    """A corpus, queries and judgments.

    Attributes:
        corpus_ids: a unique id for each document of `corpus`.
        query_ids: a unique id for each query of `queries`; all queries have at least one judgment of 1 or more.
        qrels: query id -> document id -> grade; includes judgments of 0.
        exclude_identical_ids: whether a document with the query's own id is no candidate (CQADupStack, ArguAna).
        role: `dev` suites guide choices; a `final` suite is scored once for each frozen recipe.
        code: whether BM25 splits texts with `tokenize_code`.
        counts: numbers of documents, queries and judgments, and of anything unusual: `empty`, `overlong` and `control`
            texts, queries without a judgment or without a positive one, judgments dropped for unknown ids.
        kind: `compact-retrieval` for a part of a larger suite.
        metric: the main metric; None is nDCG@10.
        source: data set and revision of a suite from the hub, as JSON values; None for a folder.
        documents_in_training: whether its documents may be trained on, without its queries, as where a person searches
            the folder that the model was made for; then training data touches a query by its own words only.
        units: for each document the id of the one that stands for it. Documents of one unit are parts of a whole, found
            once, at the rank of its best part; judgments name the one that stands for it. None: no parts.
        halves: of the suite that it is a sample of, which decide what is sealed of its queries; None: its own.
    """

    name: str
    corpus_ids: list[str]
    corpus: list[Document]
    query_ids: list[str]
    queries: list[str]
    qrels: dict[str, dict[str, int]]
    exclude_identical_ids: bool = False
    role: Role | None = None
    code: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    kind: Kind = "retrieval"
    metric: str | None = None
    source: dict[str, Any] | None = None
    units: list[str] | None = None
    documents_in_training: bool = False
    halves: Halves | None = None

    options: ClassVar[frozenset[str]] = COMMON_OPTIONS | {"kind", "max_queries", "max_documents"}

    @property
    def members(self) -> "list[RetrievalSuite]":
        """The tasks: only this one."""
        return [self]

    def details(self) -> dict[str, Any]:
        """The tokenizer of BM25, the exclusion rule, and sizes."""
        return {
            "tokens": "code" if self.code else "text",
            "exclude_identical_ids": self.exclude_identical_ids,
            "documents": len(self.corpus),
            "queries": len(self.queries),
            **({"documents_in_training": True} if self.documents_in_training else {}),
        }

    def texts(self) -> SuiteTexts:
        """Queries and documents."""
        return SuiteTexts(
            self.name,
            self.fingerprint,
            list(zip(self.query_ids, self.queries, strict=True)),
            list(zip(self.corpus_ids, self.corpus, strict=True)),
            {}
            if self.documents_in_training
            else {query: {key for key, grade in judged.items() if grade >= 1} for query, judged in self.qrels.items()},
        )

    def size(self) -> str:
        """Numbers of queries and documents, in words."""
        return f"{len(self.queries):,} queries over {len(self.corpus):,} documents"

    def how_to_shrink(self) -> str:
        """How a person evaluates a part of it."""
        return "max_queries, max_documents in a list of suites"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of ids, texts, judgments and the exclusion rule, whatever their order."""
        documents = sorted(zip(self.corpus_ids, self.corpus, strict=True))
        parts = [part for key, (text, title) in documents for part in (key, title or "", text)]
        for key, query in sorted(zip(self.query_ids, self.queries, strict=True)):
            parts += [key, query]
            parts += [part for found, grade in sorted(self.qrels[key].items()) for part in (found, str(grade))]
        if self.documents_in_training:
            parts.append("documents in training")
        if self.units is not None:
            parts += [part for pair in sorted(zip(self.corpus_ids, self.units, strict=True)) for part in pair]
        return sha256_text(str(self.exclude_identical_ids), *parts)


def load_suite(path: Path) -> RetrievalSuite:
    """Read a suite folder.

    Raises:
        InputError: a file is missing or malformed, ids repeat or are unknown, the corpus is empty, or no query has a
            positive judgment.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such suite folder; it must have corpus.jsonl, queries.jsonl and qrels/test.tsv")
    options = read_options(path / "suite.yaml")
    if "suites" in options:
        raise InputError(f"{path / 'suite.yaml'} lists several suites; open it with --suite {path}")
    check_corpus_fits([_find_file(path, "corpus.jsonl")])
    counts: Counter[str] = Counter(empty=0, overlong=0, control=0)
    units: dict[str, str] = {}
    corpus = _read_texts(_find_file(path, "corpus.jsonl"), counts, with_title=True, units=units)
    queries = _read_texts(_find_file(path, "queries.jsonl"), counts, with_title=False)
    qrels = _read_qrels(path / "qrels" / "test.tsv")
    judgments = str(path / "qrels" / "test.tsv")
    name = options.get("name") or as_name(path.resolve().name)
    suite = make_suite(name, corpus, queries, qrels, options, counts, judgments)
    if units:
        suite.units = _check_units(units, suite, path)
    suite.halves = _read_halves(path / SAMPLED_FROM)
    return suite


def _read_halves(file: Path) -> Halves | None:
    """Those of the suite that this one is a sample of, if it is one; older versions did not write them.

    Raises:
        InputError: the file is damaged.
    """
    if not file.is_file():
        return None
    try:
        found = load_own_json(file)
        return Halves(str(found["halves_of"]), str(found["sealed_from"])) if "sealed_from" in found else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} is damaged ({' '.join(str(error).split())[:200]}); sample the suite again") from error


def make_suite(
    name: str,
    corpus: dict[str, Document],
    queries: dict[str, Document],
    qrels: dict[str, dict[str, int]],
    options: dict[str, Any],
    counts: Counter[str],
    where: str,
) -> RetrievalSuite:
    """Make a suite from texts and judgments; `where` names the judgments' file in errors.

    Raises:
        InputError: judgments name unknown ids, or no query has a positive one.
    """
    qrels = _filter_judgments(qrels, corpus, queries, options.get("unknown_ids") == "drop", where, counts)
    judged = [key for key in queries if max(qrels.get(key, {}).values(), default=0) >= 1]
    counts["queries_without_judgment"] = sum(key not in qrels for key in queries)
    counts["queries_without_positive"] = sum(key in qrels for key in queries) - len(judged)
    if not judged:
        raise InputError(f"{where}: no query has a judgment of 1 or more; nothing can be measured")
    qrels = {key: qrels[key] for key in judged}
    counts.update(documents=len(corpus), queries=len(judged), judgments=sum(map(len, qrels.values())))
    return RetrievalSuite(
        name=name,
        corpus_ids=list(corpus),
        corpus=list(corpus.values()),
        query_ids=judged,
        queries=[queries[key].text for key in judged],
        qrels=qrels,
        exclude_identical_ids=options.get("exclude_identical_ids", False),
        role=options.get("role"),
        code=options.get("tokens") == "code",
        counts=dict(counts),
        kind=options.get("kind", "retrieval"),
        metric=options.get("metric"),
        documents_in_training=options.get("documents_in_training", False),
    )


def write_suite(path: Path, suite: RetrievalSuite) -> None:
    """Write a suite as a folder that `load_suite` reads; replace `path` only when everything is written.

    Raises:
        InputError: an id holds a tab or a line break, which judgments in TSV cannot say.
        WorkError: the disk is full or the folder cannot be written.
    """
    judged_ids = {*suite.qrels, *(key for judged in suite.qrels.values() for key in judged)}
    if odd := next((key for key in sorted(judged_ids) if _BREAKS.search(key)), None):
        raise InputError(
            f"{suite.name}: the id {odd!r} holds a tab or a line break, which no suite on disk can; rename it"
        )
    with atomic_folder(Path(path)) as folder:
        documents = zip(suite.corpus_ids, suite.corpus, strict=True)
        values = ({"_id": key, "title": title or "", "text": text} for key, (text, title) in documents)
        if suite.units is not None:
            values = (value | {"unit": unit} for value, unit in zip(values, suite.units, strict=True))
        write_lines(folder / "corpus.jsonl", values)
        queries = zip(suite.query_ids, suite.queries, strict=True)
        write_lines(folder / "queries.jsonl", ({"_id": key, "text": text} for key, text in queries))
        (folder / "qrels").mkdir()
        judgments = ((query, key, grade) for query, judged in suite.qrels.items() for key, grade in judged.items())
        lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{key}\t{grade}" for query, key, grade in judgments)]
        (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        options: dict[str, Any] = {"name": suite.name, "tokens": "code" if suite.code else "text"}
        if suite.role:
            options["role"] = suite.role
        if suite.exclude_identical_ids:
            options["exclude_identical_ids"] = True
        if suite.documents_in_training:
            options["documents_in_training"] = True
        if suite.kind != "retrieval":
            options["kind"] = suite.kind
        if suite.metric:
            options["metric"] = suite.metric
        (folder / "suite.yaml").write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")


def read_options(path: Path) -> dict[str, Any]:
    """Read and check the options of a `suite.yaml`; empty if there is none. A list of `suites` is not checked here.

    Raises:
        InputError: the file is not YAML, an option is unknown, or its value is not allowed.
    """
    if not path.exists():
        return {}
    read = parse_yaml(read_text(path, "suite's options"), str(path))
    if read is None:
        return {}
    if not isinstance(read, dict):
        raise InputError(f"{path}: options as `name: value` lines are needed, not {json_type(read)}")
    if "suites" in read:
        return read
    for key, value in read.items():
        if key not in OPTIONS:
            raise InputError(f"{path}: unknown option {key!r}; known options are {', '.join(OPTIONS)}")
        allowed = OPTIONS[key]
        if not (isinstance(value, allowed) if isinstance(allowed, type) else value in allowed):
            wanted = "a string" if isinstance(allowed, type) else " or ".join(str(one) for one in allowed)
            raise InputError(f"{path}: option {key!r} is {value!r}; {wanted} is needed")
    if "name" in read:
        check_name(read["name"], str(path))
    return read


def _find_file(folder: Path, name: str) -> Path:
    for found in (folder / name, folder / f"{name}.gz"):
        if found.is_file():
            return found
    raise InputError(f"{folder / name}: missing; a suite folder has corpus.jsonl, queries.jsonl and qrels/test.tsv")


def _check_units(units: dict[str, str], suite: RetrievalSuite, path: Path) -> list[str]:
    """Return the unit of each document: its own id where the file says none.

    Raises:
        InputError: a unit is not a document that stands for itself, or a judgment names a part.
    """
    odd = next((unit for unit in units.values() if units.get(unit, unit) != unit or unit not in suite.corpus_ids), None)
    if odd is not None:
        raise InputError(f"{path}: {ascii(odd)[:60]} is the unit of a document, but no document that is its own unit")
    judged = {key for found in suite.qrels.values() for key in found}
    if part := next((key for key in sorted(judged) if units.get(key, key) != key), None):
        raise InputError(f"{path}: a judgment names {ascii(part)[:60]}, a part of {ascii(units[part])[:60]}; name that")
    return [units.get(key, key) for key in suite.corpus_ids]


def _read_texts(
    path: Path, counts: Counter[str], with_title: bool, units: dict[str, str] | None = None
) -> dict[str, Document]:
    """Read id -> document in the file's order; keep empty texts, whose documents can be retrieved, and count them.

    `units` gets id -> unit of the documents that have one.
    """
    read: dict[str, Document] = {}
    for number, value, reason in read_lines(path):
        where = f"{path} line {number}"
        if value is None:
            raise InputError(f"{where}: {reason}")
        key = parse_id(value.get("_id"), f"{where}, field '_id'")
        text, title = value.get("text"), value.get("title") if with_title else None
        if not isinstance(text, str):
            raise InputError(f"{where}, field 'text': a string is needed, not {json_type(text)}")
        if not isinstance(title, str | None):
            raise InputError(f"{where}, field 'title': a string is needed, not {json_type(title)}")
        if key in read:
            raise InputError(f"{where}, field '_id': {key!r} occurs twice; ids must be unique")
        read[key] = Document(clean_text(text, counts), clean_title(title))
        if units is not None and value.get("unit") is not None:
            units[key] = parse_id(value["unit"], f"{where}, field 'unit'")
    if not read:
        raise InputError(f"{path}: the file is empty; at least one line is needed")
    return read


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    if not path.is_file():
        raise InputError(
            f"{path}: missing; judgments as `query-id<TAB>corpus-id<TAB>score` lines with a header are needed"
        )
    qrels: dict[str, dict[str, int]] = {}
    for line, query, document, grade in read_judgments(path, header=True):
        judged = qrels.setdefault(query, {})
        if document in judged:
            raise InputError(f"{path} line {line}: query {query!r} and document {document!r} are judged twice")
        judged[document] = grade
    if not qrels:
        raise InputError(f"{path}: no judgments; a header line and at least one judgment are needed")
    return qrels


def _filter_judgments(
    qrels: dict[str, dict[str, int]],
    corpus: dict[str, Document],
    queries: dict[str, Document],
    drop: bool,
    where: str,
    counts: Counter[str],
) -> dict[str, dict[str, int]]:
    """Return the judgments whose query and document exist; refuse others, or count them if `drop` is set."""
    unknown = [
        ("query", query) if query not in queries else ("document", document)
        for query, judged in qrels.items()
        for document in judged
        if query not in queries or document not in corpus
    ]
    counts["judgments_dropped"] = len(unknown)
    if unknown and not drop:
        kind, first = unknown[0]
        raise InputError(
            f"{where}: {len(unknown)} judgments name unknown ids, first {kind} {repr(first)[:60]}; "
            "correct the file or write `unknown_ids: drop` into suite.yaml"
        )
    kept = {
        query: {document: grade for document, grade in judged.items() if document in corpus}
        for query, judged in qrels.items()
        if query in queries
    }
    return {query: judged for query, judged in kept.items() if judged}
