"""Padding: the same right document, with sentences of other documents behind it."""

from gemma4vec.inspection.attributes import split_sentences
from gemma4vec.inspection.probes.measured import Measure, Scores, shift
from gemma4vec.inspection.probes.registry import MOST, Case, Material, Probe
from gemma4vec.text.prompts import Document

PADDING = 3  # sentences


def cases(material: Material) -> list[Case]:
    """Right documents of two sentences or more that the model reads whole, padding included."""
    generator = material.generator("length")
    found: list[Case] = []
    corpus = material.suite.corpus
    for query, one in material.evidence():
        if one.sentences < 2:
            continue
        foreign = [corpus[at].text for at in generator.integers(0, len(corpus), size=PADDING).tolist()]
        drawn = [parts[int(generator.integers(len(parts)))][1] for text in foreign if (parts := split_sentences(text))]
        padded = Document(" ".join([one.document.text, *drawn]), one.document.title)
        removed = Document(" ".join(one.others), one.document.title)
        if drawn and material.fits(padded):
            found.append({"plain": (query, one.document), "padded": (query, padded), "removed": (query, removed)})
        if len(found) == MOST:
            break
    return found


def measures(scores: Scores, control: Scores, seed: int) -> list[Measure]:
    """What padding costs, as a share of what the evidence is worth."""
    return [shift("length", "three foreign sentences behind it", scores, control, ("plain", "padded"), WORTH, seed)]


WORTH = ("plain", "removed")
LENGTH = Probe(
    "length",
    "the right document with sentences of other documents behind it",
    "data",
    "arXiv:2410.24200",
    cases,
    measures,
)
