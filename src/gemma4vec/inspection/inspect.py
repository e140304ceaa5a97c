"""One inspection: readings, attributes, slices, kinds, geometry and advice, written as one folder.

Values of single queries of the sealed half are used for nothing and written nowhere. Each step is stored
(`steps.Steps`), so that a killed inspection goes on, and another one of the same model and suite takes seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.ranking import Progress, Ranker, no_progress
from gemma4vec.files import check_writable
from gemma4vec.inspection.advice import advise
from gemma4vec.inspection.attributes import Case, Facts, describe_cases, document_frequency, whole_text
from gemma4vec.inspection.exposures import remedy_key, verdicts
from gemma4vec.inspection.geometry.figures import Figure, hubness
from gemma4vec.inspection.geometry.measure import vector_figures
from gemma4vec.inspection.inspected import NOTHING_MORE, Columns, Inspection, Subject, Wanted
from gemma4vec.inspection.inspection_files import CLUSTERS, LAYERS, MAP, PROBES, held, write_inspection
from gemma4vec.inspection.kinds import count_kinds, failed, find_kinds
from gemma4vec.inspection.layers.scores import layer_scores
from gemma4vec.inspection.layers.states import find_embedder
from gemma4vec.inspection.predicates import TOPIC
from gemma4vec.inspection.probes.run_probes import probe_model
from gemma4vec.inspection.reading import Reading, read_model, touched_by_training
from gemma4vec.inspection.slices import SPENT, TOUCHED, Slice, find_slices, touched_sentence, touched_slice, with_status
from gemma4vec.inspection.steps import Arrays, Steps, pack, unpack
from gemma4vec.inspection.token_counts import COUNTED, TokenCounter, token_counter
from gemma4vec.inspection.topics.clusters import cluster_queries
from gemma4vec.inspection.topics.map import DOCUMENTS as MAPPED
from gemma4vec.inspection.topics.map import NOT_KNOWN, MapPoints, map_suite
from gemma4vec.inspection.topics.space import TopicSpace, find_topics
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.ledger.suite_contents import split_order
from gemma4vec.ledger.suite_halves import sealed_half
from gemma4vec.retrieval.tokenize import choose_tokenizer
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_embedder import TextEmbedder

TOKENS_CACHED = 50_000  # texts


def inspect(
    subject: Subject,
    suite: RetrievalSuite,
    out: Path,
    *,
    against: Subject | None = None,
    opened_as: Mapping[str, Any] | None = None,
    permutations: int = 2000,
    seed: int = 0,
    wanted: Wanted = NOTHING_MORE,
    progress: Progress = no_progress,
) -> Inspection:
    """Inspect a model on a dev suite and write the folder `out`.

    Args:
        against: another model for the paired view; None looks at the model's own scores alone.
        opened_as: the words by which the suite opens again, for inspection.json.
        permutations: of max-T.
        seed: of permutations and samples.
        wanted: what to do beyond the usual steps.
        progress: of the encoding.

    Raises:
        InputError: a final suite; another process inspects into `out`; as `evaluate`.
        WorkError: vectors that are not finite or not of unit length; a full disk.
    """
    check_choice("inspect shows single queries", suite)
    if (wanted.probes or wanted.layers or wanted.map) and isinstance(subject.model, Ranker):
        raise InputError(
            f"--probes, --layers and --map need vectors, and {subject.model.name} has none; leave them out"
        )
    if wanted.layers:
        find_embedder(subject.model)  # refuses a model of another library before anything is encoded
    check_writable(out)
    with held(out):
        found = _inspect(subject, suite, against, permutations, seed, wanted, progress)
        write_inspection(found, out, opened_as or {})
    return found


def _inspect(
    subject: Subject,
    suite: RetrievalSuite,
    against: Subject | None,
    permutations: int,
    seed: int,
    wanted: Wanted,
    progress: Progress,
) -> Inspection:
    fingerprint, sealed_N = suite.fingerprint, sealed_half(suite)
    steps = steps_of(subject, fingerprint)
    reading = read_model(subject.model, suite, steps, run=subject.run, progress=progress)
    other_steps = steps_of(against, fingerprint) if against is not None else None
    other = None
    if against is not None and other_steps is not None:
        other = read_model(against.model, suite, other_steps, run=against.run, progress=progress)
    metric = suite.metric or "ndcg@10"
    columns, tokens, limit = describe_queries(subject, suite, steps)
    notes: list[str] = (
        [] if sealed_N is not None else ["no halves: none of its queries is sealed, so no slice can be confirmed"]
    )
    open_N = np.ones(len(suite.queries), dtype=bool) if sealed_N is None else ~sealed_N
    mark = _mark(suite, open_N)
    space = find_topics(suite, open_N, seed) if wanted.clusters or wanted.map else ""
    if isinstance(space, TopicSpace):
        columns = {**columns, TOPIC: list(space.topics(suite.queries))}
    slices = _slices(
        reading, other, metric, columns, sealed_N, permutations, seed, identity_of(subject, against, suite)
    )
    slices = with_status(slices, _known(slices, fingerprint))
    if sealed_N is not None and not slices:
        notes.append(_why_no_slices(reading, other, metric, open_N))
    touched = _touched(reading, other, metric, columns, open_N, permutations, seed)
    if touched is not None:
        compared = subject.model.name if against is None else f"{subject.model.name} minus {against.model.name}"
        notes.append(touched_sentence(touched, len(suite.queries), compared))
    flags = find_kinds(suite, reading, other, columns)
    kinds = count_kinds(flags, failed(reading), open_N)
    figures = hubness(reading.top, len(suite.corpus), seed=seed)
    if not isinstance(subject.model, Ranker):
        geometry = partial(_geometry, subject.model, suite, reading, open_N, seed)
        measured = unpack(steps.take(f"geometry{mark}", geometry))
        figures += [Figure(**one) for one in measured["figures"]]
        notes += measured["notes"]
    extras = _extras(subject, suite, steps, np.flatnonzero(open_N).tolist(), wanted, seed, mark)
    if wanted.clusters or wanted.map:
        values_N = reading.values(metric) - (other.values(metric) if other is not None else 0.0)
        extras[CLUSTERS] = cluster_queries(suite, space, values_N, open_N, permutations=permutations, seed=seed)
    if wanted.map:
        extras[MAP] = _map(subject, suite, extras[CLUSTERS]["queries"], open_N, failed(reading), seed)
    name = against.model.name if against is not None else None
    advice = advise(slices, kinds, figures, name, limit, extras.get(PROBES, {}).get("figures", []))
    keys = {"model": steps.key, **({"against": other_steps.key} if other_steps is not None else {})}
    return Inspection(
        subject, against, suite, fingerprint, metric, reading, other, columns, sealed_N, slices, flags, kinds, figures,
        advice, tokens, limit, keys, notes, extras, touched,
    )  # fmt: skip


def _extras(
    subject: Subject, suite: RetrievalSuite, steps: Steps, rows: Sequence[int], wanted: Wanted, seed: int, mark: str
) -> dict[str, Any]:
    """Contents of the files that were asked for, by name; `rows` are the queries of the open half, `mark` its name."""
    found: dict[str, Any] = {}
    if isinstance(subject.model, Ranker):
        return found
    if wanted.probes:
        found[PROBES] = probe_model(subject.model, suite, steps, rows, wanted.probes, seed, mark)
    if wanted.layers:
        layers = partial(_layers, subject.model, suite, rows, seed)
        found[LAYERS] = unpack(steps.take(f"layers-{seed}{mark}", layers))
    return found


def _map(
    subject: Subject,
    suite: RetrievalSuite,
    topics: Mapping[str, int],
    open_N: npt.NDArray[np.bool_],
    failed_N: npt.NDArray[np.bool_],
    seed: int,
) -> MapPoints:
    """The map of a model with vectors; `topics` are numbers by the queries' ids."""
    assert not isinstance(subject.model, Ranker)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(suite.corpus))[:MAPPED])
    documents_MD = subject.model.encode_document([suite.corpus[at] for at in drawn.tolist()])
    queries_ND = subject.model.encode_query(suite.queries)
    topic_N = np.array([topics.get(key, NOT_KNOWN) for key in suite.query_ids])
    return map_suite(documents_MD, drawn, queries_ND, open_N, topic_N, failed_N, seed)


def _layers(model: TextEmbedder, suite: RetrievalSuite, rows: Sequence[int], seed: int) -> Arrays:
    return pack(layer_scores(model, suite, rows, seed))


def _mark(suite: RetrievalSuite, open_N: npt.NDArray[np.bool_]) -> str:
    """What names of steps on the open half end with, where it is another one than the suite's contents alone give."""
    own = split_order(suite.fingerprint, suite.query_ids)
    same = own is None or all(own.seals(key) != is_open for key, is_open in zip(suite.query_ids, open_N, strict=True))
    return "" if same else "-of-whole"


def identity_of(subject: Subject, against: Subject | None, suite: RetrievalSuite) -> str:
    """What the ids of slices depend on: both models and the suite's contents."""
    other = against.model.fingerprint if against is not None else ""
    return f"{subject.model.fingerprint} {other} {suite.fingerprint}"


def case_of(suite: RetrievalSuite, row: int, place: Mapping[str, int]) -> Case:
    """A query of a suite with its right documents, those that the corpus has."""
    judged = suite.qrels[suite.query_ids[row]]
    right = sorted(key for key, grade in judged.items() if grade >= 1 and key in place)
    return Case(suite.queries[row], [suite.corpus[place[key]] for key in right])


def describe_queries(
    subject: Subject, suite: RetrievalSuite, steps: Steps
) -> tuple[Columns, npt.NDArray[np.int64] | None, int | None]:
    """Every attribute of every query, tokens of the documents, and the model's limit; None for one without a limit."""
    counter = token_counter(subject.model)
    tokens = None if counter is None else steps.take("tokens", partial(_count_tokens, counter, suite))["tokens"]
    columns = unpack(steps.take("attributes", partial(_attributes, suite, counter, tokens)))["columns"]
    touched = touched_by_training(subject.model, suite, subject.run)  # never stored: a check may follow
    columns[TOUCHED] = list(touched) if touched is not None else [None] * len(suite.queries)
    return columns, tokens, counter.limit if counter is not None else None


def steps_of(subject: Subject, fingerprint: str) -> Steps:
    """The steps of a model on a suite's contents."""
    return Steps(subject.model.fingerprint, subject.model.describe(), fingerprint)


def _count_tokens(counter: TokenCounter, suite: RetrievalSuite) -> Arrays:
    if len(suite.corpus) <= COUNTED:
        wanted: Sequence[int] = range(len(suite.corpus))
    else:
        place = {key: index for index, key in enumerate(suite.corpus_ids)}
        judged = {key for one in suite.qrels.values() for key, grade in one.items() if grade >= 1}
        wanted = sorted(place[key] for key in judged if key in place)
    return {"tokens": counter.of(suite.corpus, wanted)}


def _attributes(suite: RetrievalSuite, counter: TokenCounter | None, tokens: npt.NDArray[np.int64] | None) -> Arrays:
    """Every attribute of every query."""
    texts = [whole_text(one) for one in suite.corpus]
    chosen = choose_tokenizer(texts, code=suite.code)
    tokenize = lru_cache(maxsize=TOKENS_CACHED)(chosen)
    lengths = {} if tokens is None else dict(zip(suite.corpus, tokens.tolist(), strict=True))
    facts = Facts(
        tokenize,
        document_frequency(texts, chosen),
        count_tokens=None if counter is None else partial(_length, counter, lengths),
        limit=None if counter is None else counter.limit,
    )
    place = {key: index for index, key in enumerate(suite.corpus_ids)}
    cases = [case_of(suite, row, place) for row in range(len(suite.queries))]
    return pack({"columns": describe_cases(cases, facts)})


def _length(counter: TokenCounter, lengths: Mapping[Document, int], document: Document) -> int:
    """Tokens of a document of the corpus, or of a part of one."""
    known = lengths.get(document, -1)
    return known if known >= 0 else counter.count([document])[0]


def _slices(
    reading: Reading,
    other: Reading | None,
    metric: str,
    columns: Columns,
    sealed_N: npt.NDArray[np.bool_] | None,
    permutations: int,
    seed: int,
    identity: str,
) -> list[Slice]:
    """Paired slices first."""
    if sealed_N is None:
        return []
    own_N = reading.values(metric)
    found: list[Slice] = []
    if other is not None:
        paired_N = own_N - other.values(metric)
        found = find_slices(paired_N, columns, sealed_N, "paired", identity, permutations=permutations, seed=seed)
    return found + find_slices(own_N, columns, sealed_N, "absolute", identity, permutations=permutations, seed=seed)


def _touched(
    reading: Reading,
    other: Reading | None,
    metric: str,
    columns: Columns,
    open_N: npt.NDArray[np.bool_],
    permutations: int,
    seed: int,
) -> dict[str, Any] | None:
    """What training data touches, in the paired view first."""
    own_N = reading.values(metric)
    paired = {} if other is None else {"paired": own_N - other.values(metric)}
    views = {**paired, "absolute": own_N}
    return touched_slice(views, columns[TOUCHED], open_N, permutations=permutations, seed=seed)


def _known(slices: Sequence[Slice], fingerprint: str) -> dict[str, str]:
    """What the ledger knows of slices: id -> confirmed, refuted, or spent by the verification of a remedy."""
    found = verdicts(fingerprint)
    known = {one.id: SPENT for one in slices if remedy_key(one.rule, fingerprint) in found}
    return {key: verdict.word for key, verdict in found.items()} | known


def _why_no_slices(reading: Reading, other: Reading | None, metric: str, open_N: npt.NDArray[np.bool_]) -> str:
    values_D = reading.values(metric)[open_N]
    equal = np.ptp(values_D) == 0.0 and (other is None or np.ptp(other.values(metric)[open_N]) == 0.0)
    if equal:
        return f"no slices: all {len(values_D)} queries of the open half score {values_D[0]:.3f}"
    return f"no slices: no rule has enough of the open half's {len(values_D)} queries on either side"


def _geometry(
    model: TextEmbedder, suite: RetrievalSuite, reading: Reading, open_N: npt.NDArray[np.bool_], seed: int
) -> Arrays:
    right = (reading.grade >= 1) & open_N[reading.query]
    pairs = list(zip(reading.query[right].tolist(), reading.document[right].tolist(), strict=True))
    queries = np.flatnonzero(open_N).tolist()
    figures, notes = vector_figures(model, suite, queries, pairs, reading.top[open_N], seed=seed)
    return pack({"figures": [asdict(one) for one in figures], "notes": notes})
