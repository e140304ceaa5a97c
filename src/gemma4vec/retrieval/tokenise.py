"""Texts as tokens for BM25: natural language by language, and code with its identifiers split.

`text_tokens` is what the BM25 rows of BEIR-like tables are usually computed with: words of two or more characters,
lower case, stop words removed, Snowball stems (Porter, 2001). bm25s and Lucene's analyzers do the same.
"""

import functools
import re
from collections.abc import Callable, Sequence

import bm25s.stopwords as stopwords
import Stemmer

Tokens = Callable[[str], list[str]]

WORD = re.compile(r"\w\w+")
CODE_WORD = re.compile(r"\w+")
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
def language_tokens(language: str) -> Tokens:
    """The tokeniser of a language in `STOP_WORDS`."""
    stop_words = STOP_WORDS[language]
    stemmer = Stemmer.Stemmer(language)
    stemmer.maxCacheSize = 200_000

    def tokens(text: str) -> list[str]:
        return stemmer.stemWords([word for word in WORD.findall(text.lower()) if word not in stop_words])

    return tokens


def text_tokens(text: str) -> list[str]:
    """English words of two or more characters, lower case, without stop words, stemmed (Snowball English)."""
    return language_tokens("english")(text)


def split_identifier(word: str) -> list[str]:
    """The parts of a snake_case, camelCase or HTTPServer2 identifier, lower case."""
    return [part.lower() for part in PART.findall(word)]


def code_tokens(text: str) -> list[str]:
    """Words of code and of questions about code: identifiers split into parts, stemmed, without English stop words.

    Unsplit identifiers make BM25 a straw man on code: `topological_sort` would not be found by "topological sort".
    """
    parts: list[str] = []
    for word in CODE_WORD.findall(text):
        parts.extend(split_identifier(word))
    return code_stems(parts)


def code_stems(parts: Sequence[str]) -> list[str]:
    """Stems of lower-case identifier parts, English stop words removed."""
    stop_words = STOP_WORDS["english"]
    return _english_stemmer().stemWords([part for part in parts if part not in stop_words])


@functools.cache
def _english_stemmer() -> Stemmer.Stemmer:
    stemmer = Stemmer.Stemmer("english")
    stemmer.maxCacheSize = 200_000
    return stemmer


def guess_language(texts: Sequence[str], sample: int = 500) -> str:
    """The language whose stop words cover most words of (a sample of) the texts; English when unclear."""
    step = max(1, len(texts) // sample)
    words = [word for text in texts[::step] for word in CODE_WORD.findall(text[:2_000].lower())]
    coverage = {language: sum(word in stop for word in words) for language, stop in STOP_WORDS.items()}
    best = max(coverage, key=coverage.__getitem__, default="english")
    # Stop word lists differ in length: a longer one must win clearly before English is given up.
    return best if coverage[best] > 1.2 * coverage["english"] else "english"


def tokeniser(texts: Sequence[str], code: bool = False) -> Tokens:
    """The tokeniser that suits a corpus: `code_tokens` for code, else that of the language in which it is written."""
    return code_tokens if code else language_tokens(guess_language(texts))
