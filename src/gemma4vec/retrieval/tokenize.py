"""Tokenizers for BM25: natural language, one for each language, and code with split identifiers.

`tokenize_text` does what published BM25 baselines do: words of two or more characters, lower case, no stop words,
Snowball stems (Porter, 2001), as in bm25s and Lucene's analyzers.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence

import bm25s.stopwords as stopwords
import Stemmer

WordTokenizer = Callable[[str], list[str]]

WORD = re.compile(r"\w\w+")
CODE_WORD = re.compile(r"\w+")
DEFINED_NAME = re.compile(r"\b(?:def|class)\s+(\w+)")
NAME_WEIGHT = 6
CODE = "code"
# Parts of an identifier: HTTPServer -> HTTP Server, camelCase -> camel Case, utf8 -> utf 8.
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
    """Return the tokenizer of a language in `STOP_WORDS`."""
    stop_words = STOP_WORDS[language]
    stemmer = Stemmer.Stemmer(language)

    def tokens(text: str) -> list[str]:
        stems: list[str] = stemmer.stemWords([word for word in WORD.findall(text.lower()) if word not in stop_words])
        return stems

    return tokens


def tokenize_text(text: str) -> list[str]:
    """Split English text into stems of its words of two or more characters, without stop words.

    Example:
        >>> tokenize_text("The cats are running")
        ['cat', 'run']
    """
    return language_tokenizer("english")(text)


def split_identifier(word: str) -> list[str]:
    """Split a snake_case or camelCase identifier into lower-case parts.

    Example:
        >>> split_identifier("HTTPServer_v2")
        ['http', 'server', 'v', '2']
    """
    return [part.lower() for part in PART.findall(word)]


def tokenize_code(text: str) -> list[str]:
    """Split code, or a question about code, into stems of identifiers, in parts and whole, without English stop words.

    Without the split, BM25 would be too weak a baseline: "topological sort" would not match `topological_sort`.
    """
    tokens: list[str] = []
    for word in CODE_WORD.findall(text):
        tokens += _code_stems(word)
    return tokens


def tokenize_code_fields(text: str) -> list[str]:
    """`tokenize_code` with the tokens of defined names repeated `NAME_WEIGHT` times, as BM25F weights a field.

    BM25F scales a field's term frequencies before saturation, instead of adding scores (Robertson, Zaragoza and Taylor,
    2004); repeating tokens is equivalent.
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
    """Return the language whose stop words cover most words of a sample of the texts; English if unclear."""
    step = max(1, len(texts) // sample)
    counts = Counter(word for text in texts[::step] for word in CODE_WORD.findall(text[:2_000].lower()))
    coverage = {language: sum(counts[word] for word in stop) for language, stop in STOP_WORDS.items()}
    best = max(coverage, key=coverage.__getitem__, default="english")
    # Stop word lists differ in length, so another language must beat English clearly.
    return best if coverage[best] > 1.2 * coverage["english"] else "english"


def choose_tokenizer(texts: Sequence[str], code: bool = False) -> WordTokenizer:
    """Return the tokenizer for a corpus: `tokenize_code` for code, otherwise the one of the texts' language."""
    return named_tokenizer(tokenizer_name(texts, code))


def tokenizer_name(texts: Sequence[str], code: bool = False) -> str:
    """Return the name of a corpus's tokenizer: "code", or a language in `STOP_WORDS`."""
    return CODE if code else guess_language(texts)


def named_tokenizer(name: str) -> WordTokenizer:
    """Return the tokenizer of a name, as `tokenizer_name` gives it.

    Raises:
        KeyError: an unknown name.
    """
    return tokenize_code if name == CODE else language_tokenizer(name)
