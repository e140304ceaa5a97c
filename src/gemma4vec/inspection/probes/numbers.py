"""Numbers: the right document against itself with another number where the query names one."""

import re

from gemma4vec.inspection.probes.evidence import map_words
from gemma4vec.inspection.probes.measured import Measure, Scores, choice
from gemma4vec.inspection.probes.registry import MOST, Case, Material, Probe
from gemma4vec.text.prompts import Document

NUMBER = re.compile(r"\b\d+\b")


def another_number(number: str) -> str:
    """A number of as many digits, all of them others: 1987 becomes 4210."""
    turned = "".join(str((int(digit) + 3) % 10) for digit in number)
    return f"1{turned[1:]}" if turned[0] == "0" and len(turned) > 1 else turned


def cases(material: Material) -> list[Case]:
    """Queries that share a number with their evidence sentence."""
    found: list[Case] = []
    for query, one in material.evidence():
        shared = set(NUMBER.findall(query)) & set(NUMBER.findall(one.sentence))
        changes = {number: another_number(number) for number in shared}
        if not changes or set(changes.values()) & set(NUMBER.findall(query)):
            continue
        wrong = map_words(one.document.text, lambda word, to=changes: to.get(word, word))  # type: ignore[misc]
        if material.fits(one.document):
            found.append({"right": (query, one.document), "wrong": (query, Document(wrong, one.document.title))})
        if len(found) == MOST:
            break
    return found


def measures(scores: Scores, control: Scores, seed: int) -> list[Measure]:
    """How often the document with the query's number is above the other."""
    return [choice("numbers", "the query's number above another", scores, control, [("right", "wrong")], seed)]


NUMBERS = Probe(
    "numbers", "the query's number in the right document, or another one", "data", "arXiv:2509.05691", cases, measures
)
