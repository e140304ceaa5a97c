"""Names: the right document against itself with another name where the query has one."""

from gemma4vec.inspection.attributes import WORD
from gemma4vec.inspection.probes.evidence import map_words
from gemma4vec.inspection.probes.measured import Measure, Scores, choice
from gemma4vec.inspection.probes.registry import MOST, Case, Material, Probe
from gemma4vec.text.prompts import Document

LETTERS = 4  # of a name, at least


def names_of(text: str) -> list[str]:
    """Capitalized words that do not begin the text: names, and in German all nouns."""
    words = WORD.findall(text)[1:]
    return [word for word in words if len(word) >= LETTERS and word.isalpha() and word.istitle()]


def cases(material: Material) -> list[Case]:
    """Queries that share a name with their right document."""
    generator = material.generator("entities")
    known = sorted({name for query, one in material.evidence() for name in names_of(one.document.text)})
    found: list[Case] = []
    for query, one in material.evidence():
        shared = [name for name in names_of(query) if name in names_of(one.document.text)]
        if not shared:
            continue
        taken = {word.lower() for word in WORD.findall(f"{query} {one.document.text}")}
        free = [name for name in known if name.lower() not in taken]
        if not free or not material.fits(one.document):
            continue
        other = free[int(generator.integers(len(free)))]
        wrong = map_words(one.document.text, lambda word, old=shared[0], to=other: to if word == old else word)  # type: ignore[misc]
        found.append({"right": (query, one.document), "wrong": (query, Document(wrong, one.document.title))})
        if len(found) == MOST:
            break
    return found


def measures(scores: Scores, control: Scores, seed: int) -> list[Measure]:
    """How often the document with the query's name is above the other."""
    return [choice("entities", "the query's name above another", scores, control, [("right", "wrong")], seed)]


ENTITIES = Probe(
    "entities", "the query's name in the right document, or another one", "data", "arXiv:2503.05037", cases, measures
)
