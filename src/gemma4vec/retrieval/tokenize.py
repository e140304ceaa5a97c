"""Texts as tokens for BM25: natural language by language, and code with its identifiers split.

`tokenize_text` is what the BM25 rows of BEIR-like tables are usually computed with: words of two or more characters,
lower case, stop words removed, Snowball stems (Porter, 2001). bm25s and Lucene's analyzers do the same.
"""

import functools
import re
from collections.abc import Callable, Sequence

import bm25s.stopwords as stopwords
import Stemmer

WordTokenizer = Callable[[str], list[str]]

WORD = re.compile(r"\w\w+")
CODE_WORD = re.compile(r"\w+")
DEFINED_NAME = re.compile(r"\b(?:def|class)\s+(\w+)")
NAME_WEIGHT = 6
# Ends of parts inside an identifier: HTTPServer -> HTTP Server, camelCase -> camel Case, utf8 -> utf 8.
PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+|[A-Z]")

STOP_WORDS: dict[str, frozenset[str]] = {
    "english": frozenset(stopwords.STOPWORDS_EN),
    "german": frozenset(stopwords.STOPWORDS_GERMAN),
    "dutch": frozenset(stopwords.STOPWORDS_DUTCH),
    "french": frozenset(stopwords.STOPWORDS_FRENCH),
    "spanish": frozenset(stopwords.STOPWORDS_SPANISH),
    "portuguese": frozenset(stopwords.STOPWORDS_PORTUGUESE),
    "italian": frozenset(stopwords.STOPWORDS_ITALIAN),
    "russian": frozenset(stopwords.STOPWORDS_RUSSIAN),
    "swedish": frozenset(stopwords.STOPWORDS_SWEDISH),
    "norwegian": frozenset(stopwords.STOPWORDS_NORWEGIAN),
    "danish": frozenset(stopwords.STOPWORDS_DANISH),
    "turkish": frozenset(stopwords.STOPWORDS_TURKISH),
}


@functools.cache
def language_tokenizer(language: str) -> WordTokenizer:
    """The tokenizer of a language in `STOP_WORDS`."""
    stop_words = STOP_WORDS[language]
    stemmer = Stemmer.Stemmer(language)

    def tokens(text: str) -> list[str]:
        return stemmer.stemWords([word for word in WORD.findall(text.lower()) if word not in stop_words])

    return tokens


def tokenize_text(text: str) -> list[str]:
    """English words of two or more characters, lower case, without stop words, stemmed (Snowball English)."""
    return language_tokenizer("english")(text)


def split_identifier(word: str) -> list[str]:
    """The parts of a snake_case, camelCase or HTTPServer2 identifier, lower case."""
    return [part.lower() for part in PART.findall(word)]


def tokenize_code(text: str) -> list[str]:
    """Words of code and of questions about code: identifiers in parts and whole, stemmed, without English stop words.

    Unsplit identifiers make BM25 a straw man on code: `topological_sort` would not be found by "topological sort".
    """
    tokens: list[str] = []
    for word in CODE_WORD.findall(text):
        tokens += _code_stems(word)
    return tokens


def tokenize_code_fields(text: str) -> list[str]:
    """`tokenize_code` with the words of defined names counted `NAME_WEIGHT` times, as BM25F weighs a field.

    A field is weighed by scaling its term frequencies before BM25 saturates them, not by adding scores (Robertson,
    Zaragoza and Taylor, 2004); repeating its tokens does that.
    """
    names = DEFINED_NAME.findall(text)
    return tokenize_code(text) + tokenize_code(" ".join(names)) * (NAME_WEIGHT - 1)


@functools.lru_cache(maxsize=200_000)
def _code_stems(word: str) -> tuple[str, ...]:
    parts = split_identifier(word)
    words = [*parts, word.lower()] if len(parts) > 1 else parts
    return tuple(_english_stemmer().stemWords([part for part in words if part not in STOP_WORDS["english"]]))


@functools.cache
def _english_stemmer() -> Stemmer.Stemmer:
    return Stemmer.Stemmer("english")


def guess_language(texts: Sequence[str], sample: int = 500) -> str:
    """The language whose stop words cover most words of (a sample of) the texts; English when unclear."""
    step = max(1, len(texts) // sample)
    words = [word for text in texts[::step] for word in CODE_WORD.findall(text[:2_000].lower())]
    coverage = {language: sum(word in stop for word in words) for language, stop in STOP_WORDS.items()}
    best = max(coverage, key=coverage.__getitem__, default="english")
    # Stop word lists differ in length: a longer one must win clearly before English is given up.
    return best if coverage[best] > 1.2 * coverage["english"] else "english"


def choose_tokenizer(texts: Sequence[str], code: bool = False) -> WordTokenizer:
    """The tokenizer that suits a corpus: `tokenize_code` for code, else that of the language in which it is written."""
    return tokenize_code if code else language_tokenizer(guess_language(texts))
