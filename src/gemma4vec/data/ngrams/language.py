"""Offline language detection: by py3langid if it is installed, else by stop words.

py3langid (Barbaresi, after Lui and Baldwin, 2012, langid.py) ships its model of character n-grams in the package. Stop
words cover a dozen European languages and need a whole sentence. Both methods return `und` when they are unsure: for
short texts, code and names.
"""

import functools
import importlib.util
import re
from collections.abc import Callable

UNDETERMINED = "und"
MAX_CHARACTERS = 500  # longer texts are cut: their start is enough
MIN_LETTERS = 20
MIN_CONFIDENCE = 0.8  # py3langid's probabilities are calibrated for length
MIN_COVERAGE = 0.2  # share of words that are stop words
MIN_MARGIN = 1.3  # coverage of the best language, as a multiple of the next one's
CODES = {
    "english": "en",
    "german": "de",
    "dutch": "nl",
    "french": "fr",
    "spanish": "es",
    "portuguese": "pt",
    "italian": "it",
    "russian": "ru",
    "swedish": "sv",
    "norwegian": "no",
    "danish": "da",
    "turkish": "tr",
}
LETTER = re.compile(r"[^\W\d_]")
LETTERS = re.compile(r"[^\W\d_]+")
# One letter of these scripts carries more information, so fewer are enough.
DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")

LanguageDetector = Callable[[str], str]


def detection_method() -> str:
    """Return the method that `make_detector` uses: "py3langid" or "stop words"."""
    return "py3langid" if importlib.util.find_spec("py3langid") else "stop words"


def make_detector() -> LanguageDetector:
    """Return a function that maps a text to its ISO 639 code, or to `und`."""
    return _load_py3langid() if detection_method() == "py3langid" else detect_by_stop_words


@functools.cache
def _load_py3langid() -> LanguageDetector:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def detect(text: str) -> str:
        start = text[:MAX_CHARACTERS]
        if not _has_enough_letters(start):
            return UNDETERMINED
        language, confidence = identifier.classify(start)
        return language if confidence >= MIN_CONFIDENCE else UNDETERMINED

    return detect


def detect_by_stop_words(text: str) -> str:
    """Return the language with the largest share of stop words; `und` unless it leads clearly."""
    start = text[:MAX_CHARACTERS]
    if not _has_enough_letters(start):
        return UNDETERMINED
    words = LETTERS.findall(start.lower())
    shares = sorted(
        ((sum(word in stop for word in words) / len(words), code) for code, stop in _load_stop_words().items()),
        reverse=True,
    )
    (best, code), (second, _) = shares[:2]
    return code if best >= MIN_COVERAGE and best >= MIN_MARGIN * second else UNDETERMINED


def _has_enough_letters(text: str) -> bool:
    return len(LETTER.findall(text)) + 4 * len(DENSE.findall(text)) >= MIN_LETTERS


@functools.cache
def _load_stop_words() -> dict[str, frozenset[str]]:
    from gemma4vec.retrieval.tokenize import STOP_WORDS

    return {CODES[name]: words for name, words in STOP_WORDS.items()}


def format_language(code: str) -> str:
    """Return a language's code for display, or "unsure" if it is undetermined."""
    return "unsure" if code == UNDETERMINED else code
