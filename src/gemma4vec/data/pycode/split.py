"""The split of pycode: which functions are tested on, which guide training, which are trained on.

Whole packages are held out, or whole files where a folder has too few packages; nothing that is kept has a
near-duplicate on the other side, because near-duplicates are kept once in total, test first.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gemma4vec.data.pycode.extract import Function
from gemma4vec.data.pycode.near_duplicates import function_tokens, keep_first, near_pairs
from gemma4vec.retrieval.tokenize import tokenize_code

HELD_OUT = ("networkx", "huggingface_hub", "rich", "pydantic", "jinja2")
TEST_SHARE, DEV_SHARE = 0.2, 0.05
MIN_PACKAGES, LARGEST_SHARE = 5, 0.5

Unit = Callable[[Function], str]


@dataclass
class Split:
    """Functions by their part, without near-duplicates; and what was left out, by reason.

    A function whose `query` is None is a document only: it had no usable sentence, or an earlier function's is alike.
    `answers` names, for a query's function, further functions whose sentence is word for word the same, in any part.
    """

    test: list[Function] = field(default_factory=list)
    dev: list[Function] = field(default_factory=list)
    train: list[Function] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    unit: str = "package"
    test_units: list[str] = field(default_factory=list)
    dev_units: list[str] = field(default_factory=list)


def stable_order(keys: Iterable[str]) -> list[str]:
    """Keys in an order that is arbitrary yet the same everywhere, and in which adding a key moves no other."""
    return sorted(keys, key=lambda key: hashlib.sha256(key.encode("utf-8", errors="surrogatepass")).digest())


def split_environment(functions: Sequence[Function], held_out: Sequence[str]) -> Split:
    """Hold out packages by name. A copy of them elsewhere (`pip/_vendor/rich`) is in no part."""
    split = Split(test_units=sorted(held_out))
    kept = []
    for function in functions:
        parts = function.path.removesuffix(".py").split("/")
        if function.package not in held_out and not set(held_out).isdisjoint(parts):
            split.reasons["copy of a held-out package"] += 1
        else:
            kept.append(function)
    return _finish(split, kept, lambda function: function.package, set(held_out))


def split_folder(functions: Sequence[Function], held_out: Sequence[str] | None) -> Split:
    """Hold out a fifth of a folder's pairs: given packages, else packages drawn by hash, else files drawn by hash.

    Files are drawn where there are fewer than 5 packages or one has more than half of the pairs.
    """
    sizes = Counter(function.package for function in functions if function.query)
    total = sum(sizes.values())
    if held_out is not None:
        return split_environment(functions, held_out)
    by_package = len(sizes) >= MIN_PACKAGES and max(sizes.values()) <= LARGEST_SHARE * total
    unit: Unit = (lambda function: function.package) if by_package else (lambda function: function.path)
    drawn = draw_units(Counter(unit(function) for function in functions if function.query), TEST_SHARE)
    split = Split(unit="package" if by_package else "file", test_units=sorted(drawn))
    return _finish(split, functions, unit, drawn)


def draw_units(sizes: Counter[str], share: float) -> set[str]:
    """Units in hash order until they hold the share of all; one that would exceed it by half is passed over.

    At least one unit is drawn where there are two; none where there is only one.
    """
    goal = share * sum(sizes.values())
    drawn: set[str] = set()
    filled = 0
    for unit in stable_order(sizes):
        if filled < goal and filled + sizes[unit] <= 1.5 * goal:
            drawn.add(unit)
            filled += sizes[unit]
    if not drawn and len(sizes) > 1:
        drawn.add(min(stable_order(sizes), key=sizes.__getitem__))
    return drawn


def _finish(split: Split, functions: Sequence[Function], unit: Unit, test_units: set[str]) -> Split:
    """Remove near-duplicates, test first; then draw the dev units from what is left and part the functions."""
    ordered = sorted(functions, key=lambda function: (unit(function) not in test_units, function.id))
    ordered = _without_duplicates(ordered, split)
    ordered = _with_unique_queries(ordered, split)
    sizes = Counter(unit(function) for function in ordered if function.query and unit(function) not in test_units)
    dev_units = draw_units(sizes, DEV_SHARE)
    split.dev_units = sorted(dev_units)
    for function in ordered:
        of = unit(function)
        (split.test if of in test_units else split.dev if of in dev_units else split.train).append(function)
    return split


def _without_duplicates(functions: list[Function], split: Split) -> list[Function]:
    kept = keep_first(near_pairs([function_tokens(function.source) for function in functions]), len(functions))
    split.reasons["near-duplicate function"] += int((~kept).sum())
    return [function for function, keep in zip(functions, kept, strict=True) if keep]


def _with_unique_queries(functions: list[Function], split: Split) -> list[Function]:
    """Each query once: a function whose sentence repeats, or nearly repeats, an earlier one's stays as a document."""
    asked = [place for place, function in enumerate(functions) if function.query]
    words = [tokenize_code(functions[place].query or "") for place in asked]
    pairs = near_pairs(words)
    kept = keep_first(pairs, len(asked)) & np.array([bool(tokens) for tokens in words], dtype=bool)
    split.reasons["near-duplicate or wordless query"] += int((~kept).sum())
    for first, second in pairs:
        if kept[first] and words[first] == words[second]:
            answer = functions[asked[second]].id
            split.answers.setdefault(functions[asked[first]].id, []).append(answer)
    made = list(functions)
    for place, keep in zip(asked, kept, strict=True):
        if not keep:
            made[place] = functions[place]._replace(query=None)
    return made
