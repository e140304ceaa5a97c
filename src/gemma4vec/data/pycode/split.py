"""Split the functions of pycode into test, dev and train.

Whole packages are held out, or whole files if a folder has too few packages. Of near-duplicates only the first is kept,
test before train, so no function has a near-duplicate in another part.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gemma4vec.data.pycode.extract import Function
from gemma4vec.data.pycode.near_duplicates import find_near_pairs, function_tokens, keep_first
from gemma4vec.retrieval.tokenize import tokenize_code

HELD_OUT = ("networkx", "huggingface_hub", "rich", "pydantic", "jinja2")
TEST_SHARE, DEV_SHARE = 0.2, 0.05
MIN_PACKAGES, LARGEST_SHARE = 5, 0.5

Unit = Callable[[Function], str]


@dataclass
class Split:
    """Functions by part, without near-duplicates.

    Attributes:
        test, dev, train: functions. One whose `query` is None is only a document: it has no usable sentence, or an
            earlier function has nearly the same one.
        answers: id of a query's function -> ids of further functions, in any part, with the same words in the sentence.
        reasons: reason -> number of functions left out.
        unit: what is held out as a whole, "package" or "file".
        test_units, dev_units: names of the units in these parts.
    """

    test: list[Function] = field(default_factory=list)
    dev: list[Function] = field(default_factory=list)
    train: list[Function] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    unit: str = "package"
    test_units: list[str] = field(default_factory=list)
    dev_units: list[str] = field(default_factory=list)


def sort_by_hash(keys: Iterable[str]) -> list[str]:
    """Sort keys by hash: arbitrary, the same everywhere, and stable when keys are added."""
    return sorted(keys, key=lambda key: hashlib.sha256(key.encode("utf-8", errors="surrogatepass")).digest())


def split_environment(functions: Sequence[Function], held_out: Sequence[str]) -> Split:
    """Hold out packages by name; leave out copies of them in other packages (`pip/_vendor/rich`)."""
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
    """Hold out the given packages; without any, draw packages or files by hash until they have a fifth of the pairs.

    Files are drawn if there are fewer than 5 packages or one has more than half of the pairs.
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
    """Draw units in hash order until they have the share of all pairs; skip a unit that would exceed it by half.

    Draws at least one unit of two or more, and none if there is only one.
    """
    goal = share * sum(sizes.values())
    drawn: set[str] = set()
    filled = 0
    for unit in sort_by_hash(sizes):
        if filled < goal and filled + sizes[unit] <= 1.5 * goal:
            drawn.add(unit)
            filled += sizes[unit]
    if not drawn and len(sizes) > 1:
        drawn.add(min(sort_by_hash(sizes), key=sizes.__getitem__))
    return drawn


def _finish(split: Split, functions: Sequence[Function], unit: Unit, test_units: set[str]) -> Split:
    """Remove near-duplicates, keeping test functions; then draw the dev units and distribute the functions."""
    ordered = sorted(functions, key=lambda function: (unit(function) not in test_units, function.id))
    ordered = _remove_duplicates(ordered, split)
    ordered = _deduplicate_queries(ordered, split)
    sizes = Counter(unit(function) for function in ordered if function.query and unit(function) not in test_units)
    dev_units = draw_units(sizes, DEV_SHARE)
    split.dev_units = sorted(dev_units)
    for function in ordered:
        name = unit(function)
        (split.test if name in test_units else split.dev if name in dev_units else split.train).append(function)
    return split


def _remove_duplicates(functions: list[Function], split: Split) -> list[Function]:
    kept = keep_first(find_near_pairs([function_tokens(function.source) for function in functions]), len(functions))
    split.reasons["near-duplicate function"] += int((~kept).sum())
    return [function for function, keep in zip(functions, kept, strict=True) if keep]


def _deduplicate_queries(functions: list[Function], split: Split) -> list[Function]:
    """Remove queries that repeat, or nearly repeat, an earlier one; their functions stay as documents."""
    with_query = [place for place, function in enumerate(functions) if function.query]
    words = [tokenize_code(functions[place].query or "") for place in with_query]
    pairs = find_near_pairs(words)
    kept = keep_first(pairs, len(with_query)) & np.array([bool(tokens) for tokens in words], dtype=bool)
    split.reasons["near-duplicate or wordless query"] += int((~kept).sum())
    for first, second in pairs:
        if kept[first] and words[first] == words[second]:
            answer = functions[with_query[second]].id
            split.answers.setdefault(functions[with_query[first]].id, []).append(answer)
    result = list(functions)
    for place, keep in zip(with_query, kept, strict=True):
        if not keep:
            result[place] = functions[place]._replace(query=None)
    return result
