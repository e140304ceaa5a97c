"""Where the evidence stands: the same sentences with the answer first, in the middle, or last."""

from gemma4vec.inspection.probes.evidence import PLACES
from gemma4vec.inspection.probes.measured import Measure, Scores, shift
from gemma4vec.inspection.probes.registry import MOST, Case, Material, Probe

SENTENCES = 5  # of a document that has places worth the name


def cases(material: Material) -> list[Case]:
    """Right documents of five sentences or more that the model reads whole."""
    generator = material.generator("position")
    found: list[Case] = []
    for query, one in material.evidence():
        if one.sentences < SENTENCES or not material.fits(one.document):
            continue
        texts = {name: one.with_evidence(share, generator) for name, share in PLACES.items()}
        texts["removed"] = one.without(generator)
        found.append({name: (query, text) for name, text in texts.items()})
        if len(found) == MOST:
            break
    return found


def measures(scores: Scores, control: Scores, seed: int) -> list[Measure]:
    """Both moves, as a share of what the evidence is worth."""
    return [
        shift("position", f"evidence {place} instead of first", scores, control, ("first", place), WORTH, seed)
        for place in ("middle", "last")
    ]


WORTH = ("first", "removed")
POSITION = Probe(
    "position",
    "the sentence with most of the query's words moved within its document",
    "data",
    "arXiv:2505.13950",
    cases,
    measures,
)
