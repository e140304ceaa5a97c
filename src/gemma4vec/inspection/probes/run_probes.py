"""All probes of one model on one suite: cases, scores, statistics, and what to say of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.inspection.attributes import whole_text
from gemma4vec.inspection.probes.entities import ENTITIES
from gemma4vec.inspection.probes.length import LENGTH
from gemma4vec.inspection.probes.limit import limit_curve
from gemma4vec.inspection.probes.literal import LITERAL
from gemma4vec.inspection.probes.measured import Floats
from gemma4vec.inspection.probes.negation import NEGATION
from gemma4vec.inspection.probes.numbers import NUMBERS
from gemma4vec.inspection.probes.position import POSITION
from gemma4vec.inspection.probes.prompts import prompt_measures
from gemma4vec.inspection.probes.registry import LEAST, Case, Material, Mend, Probe
from gemma4vec.inspection.probes.truncation import TRUNCATION
from gemma4vec.inspection.probes.word_scores import WordScores
from gemma4vec.inspection.steps import Arrays, Steps, pack, unpack
from gemma4vec.inspection.token_counts import token_counter
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.retrieval.tokenize import choose_tokenizer
from gemma4vec.statistics.multiplicity import holm
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_embedder import TextEmbedder

PROBES: dict[str, Probe] = {
    one.name: one for one in (TRUNCATION, POSITION, LENGTH, LITERAL, NEGATION, NUMBERS, ENTITIES)
}
NAMES = (*PROBES, "prompts", "limit")
MEND: dict[str, Mend] = {**{name: one.mend for name, one in PROBES.items()}, "prompts": "setting"}
PROMPTS_WORDS, PROMPTS_SOURCE = "the same texts with other prompts than the model's own", "arXiv:2509.20354"
CLEAR = 0.05
CACHED = 50_000  # texts


def chosen_probes(words: str) -> list[str]:
    """The probes that a person names: `all`, or names with commas.

    Raises:
        InputError: an unknown one.
    """
    names = list(NAMES) if words.strip() == "all" else [one.strip() for one in words.split(",") if one.strip()]
    unknown = next((one for one in names if one not in NAMES), None)
    if unknown is not None or not names:
        raise InputError(f"--probes {words}: use all, or some of {', '.join(NAMES)} with commas")
    return list(dict.fromkeys(names))


def probe_model(
    model: TextEmbedder,
    suite: RetrievalSuite,
    steps: Steps,
    rows: Sequence[int],
    names: Sequence[str],
    seed: int = 0,
    mark: str = "",
) -> dict[str, Any]:
    """The contents of `probes.json`: the probes, and their figures in order. Each probe is a step of its own.

    Args:
        rows: places of the queries that may be used: of the open half.
        names: of probes, as `chosen_probes` returns them.
        mark: what the names of the steps end with; other rows have another one.
    """
    tokenize = lru_cache(maxsize=CACHED)(choose_tokenizer([whole_text(one) for one in suite.corpus], code=suite.code))
    material = Material(suite, rows, tokenize, token_counter(model), seed)
    made: list[WordScores] = []

    def words() -> WordScores:
        made.extend([] if made else [WordScores(suite.corpus, tokenize)])
        return made[0]

    probes = []
    with ProgressBar("probe", "probes") as bar:
        for number, name in enumerate(names):
            bar(number, len(names))
            run = partial(_packed, name, model, material, words)
            probes.append(unpack(steps.take(f"probe-{name}-{seed}{mark}", run)))
    return {"probes": probes, "figures": in_order(probes)}


def _packed(name: str, model: TextEmbedder, material: Material, words: Callable[[], WordScores]) -> Arrays:
    return pack(run_probe(name, model, material, words()))


def run_probe(name: str, model: TextEmbedder, material: Material, words: WordScores) -> dict[str, Any]:
    """One probe as JSON values: `name, words, mend, source, n, measures, note`, or the curve of `limit`."""
    if name == "limit":
        curve = limit_curve(model, material)
        note = "" if curve is not None else "the corpus has too few different words"
        found = curve.as_json() if curve is not None else None
        return {"name": name, "words": "LIMIT on the corpus's own words", "measures": [], "curve": found, "note": note}
    if name == "prompts":
        measures, n = prompt_measures(model, material), min(len(material.rows), LEAST)
        told = {"words": PROMPTS_WORDS, "source": PROMPTS_SOURCE}
    else:
        probe = PROBES[name]
        cases = probe.cases(material)
        n = len(cases)
        told = {"words": probe.words, "source": probe.source}
        measures = probe.measures(*_scored(cases, model, words), material.seed) if n >= LEAST else []
    note = "" if measures else f"{n} cases are too few ({LEAST} are needed)"
    figures = [one.as_json() for one in measures]
    return {"name": name, **told, "mend": MEND[name], "measures": figures, "curve": None, "note": note}


def in_order(probes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The figures of all probes, those that are clearly worse than BM25's first; settings before data.

    p is corrected over all figures (Holm): `p_holm`. A figure with a clear p and a positive `worse` has `clear`.
    """
    measures = [dict(one) for probe in probes for one in probe.get("measures", [])]
    if not measures:
        return []
    adjusted = holm([one["p_worse"] for one in measures])
    for one, p in zip(measures, adjusted.tolist(), strict=True):
        one["p_holm"] = p
        one["clear"] = bool(p <= CLEAR and one["worse"] > 0.0)
        one["mend"] = MEND[one["probe"]]
        one["sentence"] = sentence(one)
    return sorted(measures, key=lambda one: (not one["clear"], one["mend"] != "setting", -one["worse"]))


def sentence(one: Mapping[str, Any]) -> str:
    """One figure for a person."""
    if one["kind"] == "score":
        limits = f"{one['low']:+.3f} to {one['high']:+.3f}"
        return f"prompts: {one['name']} nDCG@10 is {one['value']:+.3f} ({limits}) on {one['n']} queries"
    control = "-" if one["control"] is None else f"{one['control']:.0%}"
    limits = f"{one['low']:.0%} to {one['high']:.0%}" if np.isfinite(one["low"]) else "no interval"
    value = f"{one['value']:.0%}" if np.isfinite(one["value"]) else "an unknown share"
    if one["kind"] == "choice":
        chance = f"chance {one['chance']:.0%}"
        return f"{one['probe']}: {one['name']} in {value} ({limits}; {chance}; BM25 {control}) of {one['n']} cases"
    return (
        f"{one['probe']}: {one['name']} costs {value} ({limits}; BM25 {control}) of what the evidence is worth, "
        f"{one['n']} cases"
    )


def _scored(
    cases: Sequence[Case], model: TextEmbedder, words: WordScores
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Cosines and BM25 scores of every named pair, float64[n] by name; each text is encoded once."""
    pairs = [pair for case in cases for pair in case.values()]
    queries = list(dict.fromkeys(query for query, _ in pairs))
    documents: list[Document] = list(dict.fromkeys(document for _, document in pairs))
    queries_ND = np.asarray(model.encode_query(queries), dtype=np.float64)
    documents_MD = np.asarray(model.encode_document(documents), dtype=np.float64)
    at_query = {query: at for at, query in enumerate(queries)}
    at_document = {document: at for at, document in enumerate(documents)}
    own: dict[str, Floats] = {}
    control: dict[str, Floats] = {}
    for name in cases[0]:
        chosen = [case[name] for case in cases]
        rows = [at_query[query] for query, _ in chosen], [at_document[document] for _, document in chosen]
        own[name] = np.einsum("nd,nd->n", queries_ND[rows[0]], documents_MD[rows[1]])
        control[name] = np.array([words.score(query, document) for query, document in chosen])
    return own, control
