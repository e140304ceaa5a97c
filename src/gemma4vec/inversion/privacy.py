"""How far a model's vectors give their texts away, under each defense, and what the defense costs in retrieval.

Shapes: N held-out texts, M texts to learn from, Q queries, C documents, D dimensions.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.scoring.dense_ranker import check_unit
from gemma4vec.evaluation.scoring.vector_ranking import score_vectors
from gemma4vec.inversion.bag import fit_bag
from gemma4vec.inversion.defenses import Defense, all_defenses
from gemma4vec.inversion.floors import nearest_text, shuffled, true_text, unigrams
from gemma4vec.inversion.held_out import Split
from gemma4vec.inversion.measures import Floats, Recovery, measure_bags
from gemma4vec.statistics.bootstrap import mean_interval
from gemma4vec.statistics.student import t_interval
from gemma4vec.text.text_embedder import TextEmbedder, Vectors

METRIC = "ndcg@10"
LOWER_BOUND = "a lower bound: a stronger attacker recovers more"
TOLERATED = 0.01  # loss of nDCG@10 that counts as none
SAMPLED = 20_000  # vectors of the collection that give the mean and the directions
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
FEWEST_WORDS, MOST_WORDS = 4, 32  # of a sentence of a document
Progress = Callable[[str, int, int], None]  # what is done, how much, of how much


@dataclass(frozen=True)
class Encoded:
    """Clean unit vectors of everything that is measured.

    Attributes:
        train_MD, held_out_ND: of the texts.
        queries_QD, documents_CD: of the suite.
    """

    train_MD: Vectors
    held_out_ND: Vectors
    queries_QD: Vectors
    documents_CD: Vectors


def suite_texts(suite: RetrievalSuite, most: int, seed: int = 0) -> list[str]:
    """Sentences of a suite's documents, of 4 to 32 words, at most `most` of them, drawn at random."""
    sentences = [
        sentence.strip()
        for document in suite.corpus
        for sentence in SENTENCE_END.split(document.text)
        if FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS
    ]
    if len(sentences) <= most:
        return sentences
    chosen = np.random.default_rng(seed).permutation(len(sentences))[:most]
    return [sentences[n] for n in sorted(chosen.tolist())]


def encode_all(
    model: TextEmbedder, suite: RetrievalSuite, split: Split, *, as_queries: bool, report: Progress
) -> Encoded:
    """Encode texts, queries and documents, each with its own prompt.

    Raises:
        WorkError: vectors that are not finite or not of unit length.
    """
    texts = [*split.train, *split.held_out]

    def bar(what: str) -> Callable[[int, int], None]:
        return lambda done, total: report(what, done, total)

    encode = model.encode_query if as_queries else model.encode_document
    texts_TD = encode(texts, progress=bar("texts"))
    documents_CD = model.encode_document(suite.corpus, progress=bar("documents"))
    queries_QD = model.encode_query(suite.queries, progress=bar("queries"))
    numbers = [str(number + 1) for number in range(len(texts))]
    check_unit(texts_TD, numbers, f"vectors of texts of {model.name}", model)
    check_unit(documents_CD, suite.corpus_ids, f"document vectors of {model.name} on {suite.name}", model)
    check_unit(queries_QD, suite.query_ids, f"query vectors of {model.name} on {suite.name}", model)
    return Encoded(texts_TD[: len(split.train)], texts_TD[len(split.train) :], queries_QD, documents_CD)


def measure_privacy(
    encoded: Encoded, suite: RetrievalSuite, split: Split, *, seed: int = 0, report: Progress | None = None
) -> dict[str, Any]:
    """Attack clean and defended vectors, and score the suite with the same defense on both sides.

    Two attackers: the naive one was fitted on clean vectors, the adaptive one on vectors under the same defense.

    Args:
        encoded: clean vectors.
        suite: a dev suite.
        split: the texts.
        seed: of noise, and of the shuffled vectors.
        report: called after each defense.

    Returns:
        JSON values: floors, ceiling, one row a defense with intervals, and a sentence.
    """
    collection = np.concatenate([encoded.train_MD[:SAMPLED], encoded.documents_CD[:SAMPLED]])
    defenses = all_defenses(collection)
    clean = fit_bag(encoded.train_MD, split.train, seed=seed)
    undefended = _measure(clean.decode(encoded.held_out_ND), split)
    scores_Q = score_vectors(suite, encoded.queries_QD, encoded.documents_CD, METRIC)
    rows = []
    for number, defense in enumerate(defenses):
        generator = np.random.default_rng([seed, number])
        rows.append(_row(defense, encoded, suite, split, (clean, undefended, scores_Q), generator, seed))
        if report is not None:
            report("defenses", number + 1, len(defenses))
    nearest, words = nearest_text(encoded.held_out_ND, encoded.train_MD, split), unigrams(split)
    ceiling = true_text(split, encoded.held_out_ND)
    return {
        "metric": METRIC,
        "texts": {
            "learned": len(split.train),
            "held_out": len(split.held_out),
            "duplicates": split.duplicates,
            "sources": {name: split.held_out_sources.count(name) for name in dict.fromkeys(split.held_out_sources)},
        },
        "floors": {
            "nearest training text": {name: nearest.interval(name).bounds() for name in nearest.values},
            "most frequent words": {"f1": words.interval().bounds()},
            "vectors of other texts": {"f1": rows[0]["shuffled"]},
        },
        "ceiling": {name: ceiling.interval(name).bounds() for name in ceiling.values},
        "defenses": rows,
        "by_source": {name: one.bounds() for name, one in undefended.by_source().items()},
        "sentence": choose_sentence(rows),
        "remark": LOWER_BOUND,
    }


def _measure(bags: Sequence[Sequence[str]], split: Split) -> Recovery:
    return measure_bags(bags, split.held_out, split.held_out_sources)


def _row(
    defense: Defense,
    encoded: Encoded,
    suite: RetrievalSuite,
    split: Split,
    clean: tuple[Any, Recovery, Floats],
    generator: np.random.Generator,
    seed: int,
) -> dict[str, Any]:
    attacker, undefended, clean_Q = clean
    train_MD, held_ND, queries_QD, documents_CD = (
        defense.apply(vectors, generator)
        for vectors in (encoded.train_MD, encoded.held_out_ND, encoded.queries_QD, encoded.documents_CD)
    )
    adapted = attacker if defense.kind == "none" else fit_bag(train_MD, split.train, seed=seed)
    bags = adapted.decode(held_ND)
    adaptive = _measure(bags, split)
    naive = adaptive if defense.kind == "none" else _measure(attacker.decode(held_ND), split)
    scores_Q = clean_Q if defense.kind == "none" else score_vectors(suite, queries_QD, documents_CD, METRIC)
    cosines = true_text(split, encoded.held_out_ND, held_ND).values["cosine"]
    return {
        "name": defense.name,
        "kind": defense.kind,
        "cosine": float(cosines.mean()),
        "naive": naive.interval().bounds(),
        "adaptive": adaptive.interval().bounds(),
        "leak_change": t_interval(adaptive.values["f1"] - undefended.values["f1"]).bounds(),
        "shuffled": shuffled(bags, split, seed).interval().bounds(),
        "use": mean_interval(scores_Q).bounds(),
        "use_change": t_interval(scores_Q - clean_Q).bounds(),
        "penalty": adapted.penalty,
    }


def choose_sentence(rows: Sequence[dict[str, Any]]) -> str:
    """What lowers the leak most at no visible cost, in one sentence; rows[0] is undefended."""
    base = rows[0]
    kept = [row for row in rows[1:] if row["use_change"]["low"] >= -TOLERATED and row["leak_change"]["high"] < 0]
    start = f"Undefended, the attacker finds words with F1 {base['adaptive']['mean']:.3f}"
    if not kept:
        return (
            f"{start}; no defense lowers that while these queries show that {METRIC} falls by no more than "
            f"{TOLERATED:g}."
        )
    best = min(kept, key=lambda row: row["adaptive"]["mean"])
    return (
        f"{start}; among defenses that cost no more than {TOLERATED:g} of {METRIC} (95% interval), {best['name']} "
        f"lowers it most, to {best['adaptive']['mean']:.3f} (chosen on these same texts)."
    )
