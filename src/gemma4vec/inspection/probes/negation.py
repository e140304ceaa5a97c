"""Negation: a query and a sentence, both with and without "not"; each must prefer its own (as NevIR asks)."""

from gemma4vec.inspection.attributes import NEGATIONS, WORD
from gemma4vec.inspection.probes.evidence import map_words
from gemma4vec.inspection.probes.measured import Measure, Scores, choice
from gemma4vec.inspection.probes.registry import MOST, Case, Material, Probe
from gemma4vec.text.prompts import Document

_ENGLISH = "is are was were can could will would does do did has have had should may might must"
_GERMAN = "ist sind war waren kann können konnte wird werden wurde wurden hat haben hatte soll muss"
NOT = {**dict.fromkeys(_ENGLISH.split(), "not"), **dict.fromkeys(_GERMAN.split(), "nicht")}


def negate(text: str) -> str | None:
    """The text with a negation behind its first auxiliary verb; None without one, or where it is negated already."""
    words = [word.lower() for word in WORD.findall(text)]
    if not any(word in NOT for word in words) or any(word in NEGATIONS for word in words) or "n't" in text.lower():
        return None
    done: list[bool] = []

    def change(word: str) -> str:
        if done or word.lower() not in NOT:
            return word
        done.append(True)
        return f"{word} {NOT[word.lower()]}"

    return map_words(text, change)


def cases(material: Material) -> list[Case]:
    """Queries and evidence sentences that can both be negated."""
    found: list[Case] = []
    for query, one in material.evidence():
        negated_query, negated = negate(query), negate(one.sentence)
        if negated_query is None or negated is None:
            continue
        plain, other = Document(one.sentence), Document(negated)
        found.append(
            {
                "plain, plain": (query, plain),
                "plain, negated": (query, other),
                "negated, negated": (negated_query, other),
                "negated, plain": (negated_query, plain),
            }
        )
        if len(found) == MOST:
            break
    return found


def measures(scores: Scores, control: Scores, seed: int) -> list[Measure]:
    """How often both queries prefer their own sentence."""
    pairs = [("plain, plain", "plain, negated"), ("negated, negated", "negated, plain")]
    return [choice("negation", "both queries prefer their own sentence", scores, control, pairs, seed)]


NEGATION = Probe(
    "negation", "query and evidence with and without a negation", "data", "arXiv:2305.07614", cases, measures
)
