"""Truncation: documents whose evidence lies behind what the model reads, and the same with it in front."""

from gemma4vec.inspection.probes.measured import Measure, Scores, shift
from gemma4vec.inspection.probes.registry import MOST, Case, Material, Probe
from gemma4vec.text.prompts import Document


def cases(material: Material) -> list[Case]:
    """Right documents whose evidence the model does not read at all; none for a model without a limit."""
    counter = material.counter
    found: list[Case] = []
    if counter is None:
        return []
    for query, one in material.evidence():
        if not one.before or counter.count([Document(one.before, one.document.title)])[0] < counter.limit:
            continue
        front = Document(" ".join([one.sentence, *one.others]), one.document.title)
        removed = Document(" ".join(one.others), one.document.title)
        found.append({"as it is": (query, one.document), "in front": (query, front), "removed": (query, removed)})
        if len(found) == MOST:
            break
    return found


def measures(scores: Scores, control: Scores, seed: int) -> list[Measure]:
    """What the cut costs, as a share of what the evidence is worth: 1 where nothing of it is read."""
    return [shift("truncation", "evidence behind the limit", scores, control, ("in front", "as it is"), WORTH, seed)]


WORTH = ("in front", "removed")
TRUNCATION = Probe(
    "truncation",
    "evidence behind what the model reads, moved to the front",
    "setting",
    "arXiv:2505.13950",
    cases,
    measures,
)
