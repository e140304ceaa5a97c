"""How often is a document right that `gemma4vec inspect labels` flags? A reader's verdicts, and their share.

    python -m benchmarks.data.label_flags QUEUE --list FILE                         the pairs to read
    python -m benchmarks.data.label_flags QUEUE... --verdicts FILE... --reader WHO

A queue of `inspect labels` holds the flagged pairs, most suspicious first. `--list` writes those to read: the first
ones (`--top`), as a person who follows the guide reads them, and pairs drawn at random, until `--read` are in the list.
The first say how useful the queue is. The random ones say what share of all flags is right, with Wilson's interval
(1927). A pair may be in both.

A verdict is a line of JSON: `query_id, doc_id, grade` (1 the flagged document is right, 0 it is not, null undecidable),
`gold` ("right", "wrong" or null, of the judged document) and `reason`. `gemma4vec inspect judge` takes such a file too.
The result holds ids and verdicts, no text of a suite.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.rows.jsonl import read_lines, write_lines
from gemma4vec.errors import InputError
from gemma4vec.statistics.slices.lift import rate

Pair = tuple[str, str]
Entry = dict[str, Any]
GOLD = ("right", "wrong", None)


def main() -> int:
    arguments = parse_arguments()
    queues = [entries(file) for file in arguments.queues]
    drawn = [draw(len(queue), arguments.top, arguments.read, arguments.seed) for queue in queues]
    if arguments.list is not None:
        queue, (top, random) = queues[0], drawn[0]
        chosen = sorted({*top, *random})
        write_lines(
            arguments.list, [{"rank": place + 1, **queue[place], "gold": None, "reason": ""} for place in chosen]
        )
        say(f"{len(chosen)} of {len(queue)} pairs to read: {arguments.list}")
        return 0
    suites = {}
    for file, queue, verdicts, parts in zip(arguments.queues, queues, arguments.verdicts, drawn, strict=True):
        suites[file.resolve().parent.name] = counted(queue, read_verdicts(verdicts), *parts)
    for name, one in suites.items():
        say(f"{name}: {one['flagged']} flagged pairs of {one['flagged_queries']} queries")
        for part in ("random", "top"):
            say(f"  {part}: {sentence(one[part])}")
    settings = {"top": arguments.top, "read": arguments.read, "seed": arguments.seed, "reader": arguments.reader}
    write_result("label_flags", {**settings, "suites": suites}, arguments.results)
    return 0


def draw(flagged: int, top: int, read: int, seed: int) -> tuple[list[int], list[int]]:
    """Places in the queue: the first ones, and random ones until `read` differ; the draw sees no verdict."""
    first = list(range(min(top, flagged)))
    order = np.random.default_rng(seed).permutation(flagged).tolist()
    taken = set(first)
    for number, place in enumerate(order):
        if len(taken) >= min(read, flagged):
            return first, order[:number]
        taken.add(place)
    return first, order


def counted(queue: Sequence[Entry], verdicts: dict[Pair, Entry], top: Sequence[int], random: Sequence[int]) -> Entry:
    """What the reader found, in each part."""
    pairs = [(one["query_id"], one["doc_id"]) for one in queue]
    missing = [pairs[place] for place in sorted({*top, *random}) if pairs[place] not in verdicts]
    if missing:
        raise InputError(f"{len(missing)} pairs of the list have no verdict, such as {' '.join(missing[0])}")

    return {
        "flagged": len(pairs),
        "flagged_queries": len({query for query, _ in pairs}),
        "near_copies": sum(one["duplicate_of"] is not None for one in queue),
        "random": shares([verdicts[pairs[place]] for place in random]),
        "top": shares([verdicts[pairs[place]] for place in top]),
        "verdicts": [
            {"rank": place + 1, "random": place in random, "near_copy": queue[place]["duplicate_of"] is not None}
            | verdicts[pairs[place]]
            for place in sorted({*top, *random})
        ],
    }


def shares(read: Sequence[Entry]) -> Entry:
    """Counts of flagged documents and of queries' judged ones; undecidable ones count as not right, and not wrong."""
    grades = [one["grade"] for one in read]
    right = sum(grade is not None and grade >= 1 for grade in grades)
    found = rate(right, len(read))
    golds = {one["query_id"]: one["gold"] for one in read}
    wrong = rate(sum(gold == "wrong" for gold in golds.values()), len(golds))
    return {
        "read": len(read),
        "right": right,
        "wrong": sum(grade == 0 for grade in grades),
        "undecidable": sum(grade is None for grade in grades),
        "precision": found.value,
        "interval": [found.low, found.high],
        "label_faults": sum((one["grade"] or 0) >= 1 or one["gold"] == "wrong" for one in read),
        "queries": len(golds),
        "gold_wrong": wrong.hits,
        "gold_undecidable": sum(gold is None for gold in golds.values()),
        "gold_wrong_share": wrong.value,
        "gold_wrong_interval": [wrong.low, wrong.high],
    }


def sentence(one: Entry) -> str:
    """A part for a person."""
    low, high = one["interval"]
    share = "-" if one["precision"] is None else f"{one['precision']:.0%}, {low:.0%} to {high:.0%}"
    return (
        f"{one['right']} of {one['read']} flagged documents are right ({share}), {one['undecidable']} undecidable; "
        f"the judged one is wrong for {one['gold_wrong']} of {one['queries']} queries"
    )


def read_verdicts(file: Path) -> dict[Pair, Entry]:
    """Verdicts by pair, with nothing else than ids, verdict and reason."""
    found: dict[Pair, Entry] = {}
    for number, one in enumerate(entries(file), start=1):
        grade, gold, reason = one.get("grade"), one.get("gold"), one.get("reason")
        if grade not in (0, 1, None) or gold not in GOLD or not isinstance(reason, str) or not reason:
            wanted = '"grade" 0, 1 or null, "gold" "right", "wrong" or null, and "reason" in words'
            raise InputError(f"{file} line {number}: a verdict has {wanted}")
        pair = (one["query_id"], one["doc_id"])
        if pair in found:
            raise InputError(f"{file} line {number}: a second verdict on {' '.join(pair)}")
        found[pair] = {"query_id": pair[0], "doc_id": pair[1], "grade": grade, "gold": gold, "reason": reason}
    return found


def entries(file: Path) -> list[Entry]:
    """Lines that name a pair."""
    found = []
    for number, value, reason in read_lines(file):
        one = value if isinstance(value, dict) else {}
        if not isinstance(one.get("query_id"), str) or not isinstance(one.get("doc_id"), str):
            raise InputError(f"{file} line {number}: {reason or 'no query_id and doc_id'}")
        found.append(one)
    return found


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "queues", type=Path, nargs="+", metavar="QUEUE", help="queue.jsonl as it was before any verdict"
    )
    parser.add_argument("--list", type=Path, metavar="FILE", help="write the pairs to read, with texts, and stop")
    parser.add_argument("--verdicts", type=Path, nargs="+", default=[], metavar="FILE", help="one for each queue")
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--read", type=int, default=50, help="pairs in the list")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--reader", default="", help="who read, in words")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    arguments = parser.parse_args(words)
    if arguments.list is None and len(arguments.verdicts) != len(arguments.queues):
        parser.error("name a file of verdicts for each queue, or --list FILE")
    if arguments.list is not None and len(arguments.queues) != 1:
        parser.error("--list takes one queue")
    return arguments


if __name__ == "__main__":
    as_program(main)
