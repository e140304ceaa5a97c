"""What can be said of a query and its right documents without any model: the registry of attributes.

An attribute is a function of one `Case`, so it has a value for a suite's queries, for queries that nobody has seen, and
for rows of training data. That is what makes a slice a rule instead of a list of ids.

To add one: a function with the decorator `attribute`, and a case in `tests/inspection/test_attributes.py`.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from gemma4vec.data.ngrams.language import UNDETERMINED, LanguageDetector, make_detector
from gemma4vec.retrieval.tokenize import WordTokenizer
from gemma4vec.text.prompts import Document

Value = float | str | bool | None
"""A number, a word, yes or no; None where the attribute does not apply."""

Kind = Literal["number", "word", "flag"]
WORD = re.compile(r"\w+")
SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
SENTENCES_NEEDED = 3  # in a document whose evidence has a position worth the name

_NEGATIONS = """
    no not never none nobody nothing neither nor without cannot
    nicht kein keine keinen keinem keiner nie niemals niemand nichts ohne weder
    ne pas jamais aucun aucune sans rien personne
    nunca ningún ninguna sin nada tampoco
    non mai nessuno senza niente geen niet nooit zonder
"""
_QUESTION_WORDS = """
    what who whom whose when where which why how
    was wer wem wen wessen wann wo woher wohin welche welcher welches warum wieso wie wieviel
    que quoi qui quand où quel quelle pourquoi comment combien
    qué quién cuándo dónde cuál cómo cuánto cuántos
"""
NEGATIONS = frozenset(_NEGATIONS.split())
QUESTION_WORDS = frozenset(_QUESTION_WORDS.split())
QUESTION_WITHIN = 3  # words from the start: "in which year"


@dataclass(frozen=True)
class Case:
    """A query and the documents that answer it; both as texts."""

    query: str
    gold: Sequence[Document]


@dataclass(frozen=True)
class Facts:
    """What attributes know of a corpus and a model.

    Attributes:
        tokenize: BM25's tokens.
        frequency: token -> number of the corpus's documents that have it; empty without a corpus.
        count_tokens: tokens that the model reads of a document with its prompt, up to one more than its limit; None
            for a model without a limit, such as BM25.
        limit: the model's limit in tokens.
        detect: a text's language.
        topic_of: a query's topic in a frozen space (`topics.space`); None without one.
        in_training: whether a model's training data touches a query; None where nobody knows.
    """

    tokenize: WordTokenizer
    frequency: Mapping[str, int] = field(default_factory=dict)
    count_tokens: Callable[[Document], int] | None = None
    limit: int | None = None
    detect: LanguageDetector = field(default_factory=make_detector)
    topic_of: Callable[[str], str | None] | None = None
    in_training: Callable[[str], bool] | None = None


@dataclass(frozen=True)
class Attribute:
    """One attribute: its name, the kind of its values, what it is in words, and the function."""

    name: str
    kind: Kind
    words: str
    function: Callable[[Case, Facts], Value]


ATTRIBUTES: dict[str, Attribute] = {}


def attribute(kind: Kind, words: str) -> Callable[[Callable[[Case, Facts], Value]], Callable[[Case, Facts], Value]]:
    """Register a function under its name."""

    def register(function: Callable[[Case, Facts], Value]) -> Callable[[Case, Facts], Value]:
        ATTRIBUTES[function.__name__] = Attribute(function.__name__, kind, words, function)
        return function

    return register


def describe_cases(cases: Iterable[Case], facts: Facts) -> dict[str, list[Value]]:
    """Compute every attribute of every case: name -> values in the order of the cases."""
    listed = list(cases)
    return {name: [one.function(case, facts) for case in listed] for name, one in ATTRIBUTES.items()}


def document_frequency(texts: Iterable[str], tokenize: WordTokenizer) -> dict[str, int]:
    """Count the texts that have each token."""
    found: Counter[str] = Counter()
    for text in texts:
        found.update(set(tokenize(text)))
    return dict(found)


def whole_text(document: Document) -> str:
    """A document as BM25 reads it: title and text."""
    return f"{document.title} {document.text}" if document.title else document.text


@attribute("number", "words in the query")
def query_words(case: Case, facts: Facts) -> Value:
    """Number of words."""
    return float(len(WORD.findall(case.query)))


@attribute("number", "share of the query's words that the best right document has")
def overlap(case: Case, facts: Facts) -> Value:
    """Share of the query's different BM25 tokens that a right document has, the largest over right documents."""
    wanted = set(facts.tokenize(case.query))
    if not wanted or not case.gold:
        return None
    return max(len(wanted & set(facts.tokenize(whole_text(one)))) / len(wanted) for one in case.gold)


@attribute("number", "right documents of the query")
def gold_documents(case: Case, facts: Facts) -> Value:
    """Number of right documents."""
    return float(len(case.gold))


@attribute("number", "words in the right document (the shortest)")
def gold_words(case: Case, facts: Facts) -> Value:
    """Length of the shortest right document."""
    return float(min((len(WORD.findall(whole_text(one))) for one in case.gold), default=0)) if case.gold else None


@attribute("flag", "a digit in the query")
def digits(case: Case, facts: Facts) -> Value:
    """Whether the query has a digit."""
    return any(character.isdigit() for character in case.query)


@attribute("flag", "a negation in the query")
def negation(case: Case, facts: Facts) -> Value:
    """Whether the query has a word of negation in English, German, French, Spanish, Italian or Dutch."""
    lower = case.query.lower().replace("\u2019", "'")
    return "n't" in lower or any(word in NEGATIONS for word in WORD.findall(lower))


@attribute("word", "the query's question word")
def question_word(case: Case, facts: Facts) -> Value:
    """The first question word among the query's first words, or "none"."""
    words = WORD.findall(case.query.lower())[:QUESTION_WITHIN]
    return next((word for word in words if word in QUESTION_WORDS), "none")


@attribute("number", "documents that have the query's rarest word")
def rarest_word(case: Case, facts: Facts) -> Value:
    """Number of documents of the corpus with the query's rarest BM25 token; 0 for one that no document has."""
    tokens = set(facts.tokenize(case.query))
    return float(min(facts.frequency.get(token, 0) for token in tokens)) if tokens and facts.frequency else None


@attribute("number", "share of the query's words that no document has")
def unknown_words(case: Case, facts: Facts) -> Value:
    """Share of the query's BM25 tokens that the corpus lacks."""
    tokens = set(facts.tokenize(case.query))
    if not tokens or not facts.frequency:
        return None
    return sum(token not in facts.frequency for token in tokens) / len(tokens)


@attribute("flag", "every right document longer than the model reads")
def gold_truncated(case: Case, facts: Facts) -> Value:
    """Whether the model cuts each right document."""
    if facts.count_tokens is None or facts.limit is None or not case.gold:
        return None
    return all(facts.count_tokens(one) > facts.limit for one in case.gold)


@attribute("flag", "the sentence that shares most words with the query lies behind what the model reads")
def evidence_cut(case: Case, facts: Facts) -> Value:
    """Whether the model stops before the evidence, in the right document with most of the query's tokens.

    No where nothing is shared: without a value there, "no" would be another name for an overlap above 0.
    """
    if facts.count_tokens is None or facts.limit is None or not case.gold:
        return None
    evidence = _find_evidence(case, facts)
    if evidence is None:
        return False
    document, start = evidence.document, evidence.start
    return facts.count_tokens(Document(document.text[:start], document.title)) >= facts.limit if start else False


@attribute("number", "place of the sentence that shares most words with the query, 0 first, 1 last")
def evidence_place(case: Case, facts: Facts) -> Value:
    """Where the evidence is among the sentences of a right document that has at least three."""
    evidence = _find_evidence(case, facts)
    if evidence is None or evidence.sentences < SENTENCES_NEEDED:
        return None
    return evidence.number / (evidence.sentences - 1)


class _Evidence(NamedTuple):
    """The sentence that shares most tokens with the query: its number from 0, and the character that it begins at."""

    document: Document
    number: int
    sentences: int
    start: int


def _find_evidence(case: Case, facts: Facts) -> _Evidence | None:
    """The evidence in the right document where it shares most; None where nothing is shared."""
    wanted = set(facts.tokenize(case.query))
    best, most = None, 0
    for document in case.gold:
        parts = split_sentences(document.text)
        for number, (start, sentence) in enumerate(parts):
            shared = len(wanted & set(facts.tokenize(sentence)))
            if shared > most:
                best, most = _Evidence(document, number, len(parts), start), shared
    return best


def split_sentences(text: str) -> list[tuple[int, str]]:
    """(first character, sentence) of each sentence that is not blank."""
    found, start = [], 0
    for gap in [*SENTENCE.finditer(text), None]:
        end = len(text) if gap is None else gap.start()
        if text[start:end].strip():
            found.append((start, text[start:end]))
        start = end if gap is None else gap.end()
    return found


@attribute("word", "the query's script")
def script(case: Case, facts: Facts) -> Value:
    """The script of most of the query's letters, as Unicode names them, in lower case."""
    return main_script(case.query)


@attribute("word", "the query's language")
def language(case: Case, facts: Facts) -> Value:
    """The query's language as an ISO 639 code; "und" where it is unsure."""
    return facts.detect(case.query)


@attribute("flag", "the right document is in another language than the query")
def other_language(case: Case, facts: Facts) -> Value:
    """Whether the first right document's language is another one; None where either is unsure."""
    if not case.gold:
        return None
    one, other = facts.detect(case.query), facts.detect(case.gold[0].text)
    return None if UNDETERMINED in (one, other) else one != other


@attribute("word", "the query's topic")
def topic(case: Case, facts: Facts) -> Value:
    """The topic of the query in a frozen space; None without a space, or without a word that it knows."""
    return facts.topic_of(case.query) if facts.topic_of is not None else None


@attribute("flag", "the query, or a right document, in the model's training data")
def in_training(case: Case, facts: Facts) -> Value:
    """Whether training data touches the query; None where that is not known, as for rows of training data."""
    return facts.in_training(case.query) if facts.in_training is not None else None


@attribute("flag", "a right document with a title")
def gold_title(case: Case, facts: Facts) -> Value:
    """Whether a right document has a title."""
    return any(one.title for one in case.gold) if case.gold else None


def main_script(text: str) -> str:
    """The script of most letters of a text, in lower case; "none" without letters."""
    counts = Counter(
        unicodedata.name(character, "unknown").split()[0].lower() for character in text if character.isalpha()
    )
    return counts.most_common(1)[0][0] if counts else "none"
