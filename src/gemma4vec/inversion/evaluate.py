"""What a decoder recovers of texts that it never saw, beside everything that needs no decoder.

Shapes: N texts, d dimensions, M stored training texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.inversion.bag import fit_bag
from gemma4vec.inversion.candidates import embed
from gemma4vec.inversion.floors import derangement, nearest_text, true_text, unigrams
from gemma4vec.inversion.held_out import FEWEST, Split
from gemma4vec.inversion.invert import BLOCK, Inverter
from gemma4vec.inversion.measures import Bools, Recovery, measure_bags, measure_texts
from gemma4vec.model.tokenize.tokenizer import Counts
from gemma4vec.statistics.paired import sign_flip_test
from gemma4vec.statistics.student import t_interval
from gemma4vec.text.text_embedder import Vectors
from gemma4vec.text.text_hash import words_key

Progress = Callable[[str, int, int], None]

DECODER, SHUFFLED, NEAREST = "decoder", "other texts' vectors", "nearest training text"
RIDGE, UNIGRAMS, TRUE = "ridge to words", "most frequent words", "the text itself"
SHORT = 8
"""Tokens of the decoder that a short text has at most: exact matches are looked for among these first."""


def unseen_texts(
    inverter: Inverter, texts: Sequence[str], sources: Sequence[str]
) -> tuple[list[str], list[str], dict[str, int]]:
    """(texts that the decoder was never trained on, their sources, counts of what was left out).

    A text counts as unseen if the decoder's file names it as held out; or, where all training texts are stored, if it
    is none of them.

    Raises:
        InputError: fewer than 20 are left.
    """
    facts = inverter.decoder.facts
    held_out, stored = set(facts.held_out), {words_key(text) for text in inverter.texts}
    all_stored = len(inverter.texts) == facts.trained_texts
    kept: dict[str, int] = {}
    left_out = {"trained on or not known": 0, "duplicates": 0, "longer than learned": 0}
    for number, text in enumerate(texts):
        key = words_key(text)
        if key in kept:
            left_out["duplicates"] += 1
        elif key in held_out or (all_stored and key not in stored and text.strip()):
            kept[key] = number
        else:
            left_out["trained on or not known"] += 1
    parts = inverter.decoder.parts
    numbers = [number for number in kept.values() if not parts.frame.longer(parts.tokenizer, [texts[number]])]
    left_out["longer than learned"] = len(kept) - len(numbers)
    if len(numbers) < FEWEST:
        how = ", ".join(f"{count:,} {what}" for what, count in left_out.items())
        raise InputError(
            f"--evaluate: {len(numbers)} of {len(texts):,} texts are new to the decoder ({how}); give {FEWEST} or "
            "more that it was not trained on, such as the data of its own run, of which some were held out"
        )
    return [texts[n] for n in numbers], [sources[n] for n in numbers], left_out


def evaluate_decoder(
    inverter: Inverter, texts: Sequence[str], sources: Sequence[str], report: Progress | None = None
) -> dict[str, Any]:
    """Measure a decoder on texts that it was not trained on, with floors, ceiling and shuffled vectors.

    Returns:
        JSON values: rows with intervals by measure, paired differences to the floors, and both for each source with 20
        texts or more, and for short texts, if there are as many.
    """
    say = report or (lambda *_: None)
    encoder, role = inverter.encoder, inverter.decoder.facts.role
    vectors_Nd = embed(encoder, role, texts)
    other_Nd = vectors_Nd[derangement(len(texts), inverter.settings.seed)]
    split = Split(inverter.texts, list(texts), ["stored"] * len(inverter.texts), list(sources), 0)
    rows: dict[str, Recovery] = {}
    rows[DECODER] = _decoded(inverter, vectors_Nd, vectors_Nd, split, say, DECODER)
    rows[SHUFFLED] = _decoded(inverter, other_Nd, vectors_Nd, split, say, SHUFFLED)
    if inverter.texts:
        rows[NEAREST] = nearest_text(vectors_Nd, inverter.vectors_Md, split)
        bag = fit_bag(inverter.vectors_Md, inverter.texts)
        rows[RIDGE] = measure_bags(bag.decode(vectors_Nd), split.held_out, split.held_out_sources)
        rows[UNIGRAMS] = unigrams(split)
    rows[TRUE] = true_text(split, vectors_Nd)
    return {
        "texts": len(texts),
        "learned": inverter.decoder.facts.trained_texts,
        "stored": len(inverter.texts),
        "sources": {name: list(sources).count(name) for name in dict.fromkeys(sources)},
        **_figures(rows),
        "by_source": {
            name: {source: one.bounds() for source, one in row.by_source().items()} for name, row in rows.items()
        },
        "parts": _parts(rows, sources),
        "short": {"tokens": SHORT} | _part(rows, _short(inverter, texts)),
        "remark": "a lower bound: a stronger decoder recovers more",
    }


def _decoded(
    inverter: Inverter, given_Nd: Vectors, true_Nd: Vectors, split: Split, say: Progress, name: str
) -> Recovery:
    """The best texts of the given vectors, measured against the texts and vectors of `split`."""
    found: list[str] = []
    for start in range(0, len(given_Nd), BLOCK):
        found += [one.text for one in inverter.best(given_Nd[start : start + BLOCK], first=start)]
        say(name, len(found), len(given_Nd))
    again_Nd = embed(inverter.encoder, inverter.decoder.facts.role, found)
    cosines_N = (again_Nd.astype(np.float64) * true_Nd).sum(axis=1)
    return measure_texts(found, split.held_out, split.held_out_sources, cosines_N)


def _figures(rows: dict[str, Recovery]) -> dict[str, Any]:
    """Means with intervals of each row, and paired differences."""
    means = {name: {measure: row.interval(measure).bounds() for measure in row.values} for name, row in rows.items()}
    return {"rows": means, "differences": _differences(rows)}


def _parts(rows: dict[str, Recovery], sources: Sequence[str]) -> dict[str, Any]:
    """The figures of the texts of each source that has enough of them."""
    names = np.array(sources)
    found = {name: _part(rows, names == name) for name in dict.fromkeys(sources)}
    return {name: part for name, part in found.items() if "rows" in part}


def _part(rows: dict[str, Recovery], chosen_N: Bools) -> dict[str, Any]:
    """The figures of the chosen texts alone; their number alone where it is too small for figures."""
    count = int(chosen_N.sum())
    if count < FEWEST:
        return {"texts": count}
    return {"texts": count, **_figures({name: row.of(chosen_N) for name, row in rows.items()})}


def _short(inverter: Inverter, texts: Sequence[str]) -> Bools:
    """Which texts have at most `SHORT` tokens of the decoder."""
    parts = inverter.decoder.parts
    quiet = replace(parts.tokenizer, counts=Counts())
    return np.array([len(ids) <= SHORT for ids in parts.frame.read(quiet, texts)])


def _differences(rows: dict[str, Recovery]) -> dict[str, Any]:
    """Paired differences of the decoder and each floor, text by text: Student's intervals, p of random sign flips."""
    pairs = [
        (NEAREST, "cosine"),
        (NEAREST, "f1"),
        (RIDGE, "f1"),
        (UNIGRAMS, "f1"),
        (SHUFFLED, "f1"),
        (SHUFFLED, "cosine"),
    ]
    own = rows[DECODER].values
    found = {}
    for name, measure in pairs:
        if name in rows:
            differences_N = own[measure] - rows[name].values[measure]
            p = sign_flip_test(differences_N, levels=()).p
            found[f"{measure} over {name}"] = t_interval(differences_N).bounds() | {"p": p}
    return found
