"""The language of a text, offline: by py3langid where it is installed, else by its stop words.

py3langid (Barbaresi, after Lui and Baldwin, 2012, langid.py) carries its model of character n-grams in the package. The
stop words know a dozen European languages and need a sentence. Either says `und` where it is not sure: short texts,
code, names.
"""

import functools
import importlib.util
import re
from collections.abc import Callable

UNDETERMINED = "und"
CHARACTERS = 500  # of a text that are looked at
LEAST_LETTERS = 20
CONFIDENCE = 0.8  # of py3langid, whose probabilities are calibrated for length
LEAST_COVERAGE, MARGIN = 0.2, 1.3  # share of words that are stop words; times that of the next language
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
# Letters of these scripts say more each, so that fewer are enough.
DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")

LanguageDetector = Callable[[str], str]


def detection_method() -> str:
    """What `make_detector` uses: "py3langid" or "stop words"."""
    return "py3langid" if importlib.util.find_spec("py3langid") else "stop words"


def make_detector() -> LanguageDetector:
    """A function from a text to its ISO 639 code, or `und`."""
    return _py3langid() if detection_method() == "py3langid" else detect_by_stop_words


@functools.cache
def _py3langid() -> LanguageDetector:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def detect(text: str) -> str:
        start = text[:CHARACTERS]
        if not _enough(start):
            return UNDETERMINED
        language, confidence = identifier.classify(start)
        return language if confidence >= CONFIDENCE else UNDETERMINED

    return detect


def detect_by_stop_words(text: str) -> str:
    """The language whose stop words make up most of the text's words, where it is clearly ahead."""
    start = text[:CHARACTERS]
    if not _enough(start):
        return UNDETERMINED
    words = LETTERS.findall(start.lower())
    shares = sorted(
        ((sum(word in stop for word in words) / len(words), code) for code, stop in _stop_words().items()),
        reverse=True,
    )
    (best, code), (second, _) = shares[:2]
    return code if best >= LEAST_COVERAGE and best >= MARGIN * second else UNDETERMINED


def _enough(text: str) -> bool:
    return len(LETTER.findall(text)) + 4 * len(DENSE.findall(text)) >= LEAST_LETTERS


@functools.cache
def _stop_words() -> dict[str, frozenset[str]]:
    from gemma4vec.retrieval.tokenize import STOP_WORDS

    return {CODES[name]: words for name, words in STOP_WORDS.items()}


def format_language(code: str) -> str:
    """A language for people: its code, or that none is clear."""
    return "unsure" if code == UNDETERMINED else code
