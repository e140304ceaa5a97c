"""Literal overlap: the right document against a foreign one that holds the query's words and no answer."""

from gemma4vec.inspection.attributes import split_sentences
from gemma4vec.inspection.probes.measured import Measure, Scores, choice
from gemma4vec.inspection.probes.registry import MOST, Case, Material, Probe
from gemma4vec.text.prompts import Document

SENTENCES = 3  # of the foreign document


def cases(material: Material) -> list[Case]:
    """The query's words in a random order between sentences of another document, beside the right document."""
    generator = material.generator("literal")
    found: list[Case] = []
    corpus = material.suite.corpus
    for query, one in material.evidence():
        foreign = corpus[int(generator.integers(len(corpus)))]
        parts = [text for _, text in split_sentences(foreign.text)][:SENTENCES]
        words = query.split()
        shuffled = " ".join(words[at] for at in generator.permutation(len(words)).tolist())
        if foreign == one.document or len(words) < 2 or not parts:
            continue
        bait = Document(" ".join([parts[0], f"{shuffled}.", *parts[1:]]), foreign.title)
        if material.fits(bait):
            found.append({"right": (query, one.document), "bait": (query, bait)})
        if len(found) == MOST:
            break
    return found


def measures(scores: Scores, control: Scores, seed: int) -> list[Measure]:
    """How often the right document is above the bait."""
    return [choice("literal", "right document above the query's words", scores, control, [("right", "bait")], seed)]


LITERAL = Probe(
    "literal",
    "a foreign document with the query's words in it against the right one",
    "data",
    "arXiv:2503.05037",
    cases,
    measures,
)
