"""Queries from docstrings: the first sentence, without markup.

CodeSearchNet (Husain et al., 2019) takes a docstring's first paragraph; a sentence is closer to what people type into a
search box.
"""

import re

MIN_WORDS, MAX_CHARACTERS = 3, 300
MIN_ASCII_SHARE = 0.9

# A period followed by white space ends a sentence, unless it belongs to one of these.
ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|resp|approx|incl|fig|eq|eqn|ref|no|al|dr|st)|\b[A-Za-z])\.$", re.I
)
SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
# Lines that start something other than prose: a doctest, directive, field list, section, underline, table, or a
# parameter with its type (`x (int): ...`, `x : int`).
NOT_PROSE = re.compile(
    r"\s*(?:>>>|\.\.|[:@](?:param|arg|type|return|rtype|raise|var|ivar|cvar|keyword|note|see|deprecated|since|version)"
    r"|(?:args|arguments|parameters|params|returns?|yields?|raises|examples?|usage|notes?|see also|attributes"
    r"|references|keyword arguments|inputs?|outputs?|shape)\s*:\s*$"
    r"|[-=~^*#+_`]{3,}\s*$|\||[*`]{0,2}\w+[*`]{0,2}\s*(?:\([^)]*\)\s*:|\s:\s))",
    re.I,
)
SIGNATURE = re.compile(r"[\w.]+\(.*\)\s*(?:->.*)?$", re.S)

MARKUP = [
    (re.compile(r"\\([|*_`\\])"), r"\1"),  # escapes
    (re.compile(r":[\w:+-]+:`([^`<]*?)\s*<[^`>]*>`"), r"\1"),  # :role:`title <target>`
    (re.compile(r":[\w:+-]+:`~[\w.]*?(\w+)`"), r"\1"),  # :role:`~package.target` displays its last part
    (re.compile(r":[\w:+-]+:`[!~]?([^`]*)`"), r"\1"),  # :role:`target`
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?"), r"\1"),  # `title <url>`_
    (re.compile(r"\[`?([^\]`]+)`?\]\([^)\s]*\)"), r"\1"),  # [title](url)
    (re.compile(r"`{1,2}~?([^`]*)`{1,2}(?:__?)?"), r"\1"),  # literals and references
    (re.compile(r"(?<![\w*])\*{1,2}(?=\S)([^*]+?)(?<=\S)\*{1,2}(?![\w*])"), r"\1"),  # *emphasis*, **strong**
    (re.compile(r"</?(?:code|b|i|em|strong|p|br|tt|a)\b[^>]*>", re.I), ""),
]


def extract_first_sentence(docstring: str) -> str:
    """Return the first sentence of a docstring's prose, as one line without markup; "" if there is none.

    Skips a paragraph that is only the function's signature, which C extensions write there. The sentence ends at a
    blank line, at a period followed by white space, or where a doctest, field list or section starts.
    """
    for paragraph in re.split(r"\n\s*\n", docstring.strip().replace("\r", "")):
        prose: list[str] = []
        for line in paragraph.split("\n"):
            if NOT_PROSE.match(line):
                break
            prose.append(line.strip())
        text = " ".join(" ".join(prose).split())
        if SIGNATURE.match(text):
            continue
        return _strip_markup(_until_period(text))
    return ""


def _until_period(text: str) -> str:
    for end in SENTENCE_END.finditer(text):
        if not ABBREVIATION.search(text[: end.end()]):
            return text[: end.end()]
    return text


def _strip_markup(text: str) -> str:
    for pattern, replacement in MARKUP:
        text = pattern.sub(replacement, text)
    return " ".join(text.split()).rstrip(" :")


def find_sentence_flaw(sentence: str) -> str | None:
    """Return why a sentence cannot be a query, as a name for the counts of left-out functions; None if it can."""
    if not sentence:
        return "no sentence"
    if "://" in sentence:
        return "sentence with a link"
    words = re.findall(r"[A-Za-z][A-Za-z'’-]*", sentence)
    if len(sentence) > MAX_CHARACTERS:
        return "long sentence"
    if sum(character < "\x7f" for character in sentence) < MIN_ASCII_SHARE * len(sentence):
        return "not English"
    letters = sum(map(len, words))
    if len(words) < MIN_WORDS:
        return "short sentence" if len(sentence.split()) < MIN_WORDS or letters else "not English"
    return "not English" if letters < 0.5 * len(sentence.replace(" ", "")) else None
