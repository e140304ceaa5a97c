"""Docstrings as people would ask: the first sentence, without markup.

CodeSearchNet (Husain et al., 2019) takes a docstring's first paragraph; a sentence is nearer to what is typed into a
search box.
"""

import re

MIN_WORDS, MAX_CHARACTERS = 3, 300
MIN_ASCII_SHARE = 0.9

# A period ends a sentence when white space follows, unless it belongs to one of these.
ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|resp|approx|incl|fig|eq|eqn|ref|no|al|dr|st)|\b[A-Za-z])\.$", re.I
)
SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
# Lines that begin something other than prose: doctest, directive, field list, section, underline, table,
# a parameter with its type (`x (int): ...`, `x : int`).
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
    (re.compile(r":[\w:+-]+:`~[\w.]*?(\w+)`"), r"\1"),  # :role:`~package.target` is shown as its last part
    (re.compile(r":[\w:+-]+:`[!~]?([^`]*)`"), r"\1"),  # :role:`target`
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?"), r"\1"),  # `title <url>`_
    (re.compile(r"\[`?([^\]`]+)`?\]\([^)\s]*\)"), r"\1"),  # [title](url)
    (re.compile(r"`{1,2}~?([^`]*)`{1,2}(?:__?)?"), r"\1"),  # literals and references
    (re.compile(r"(?<![\w*])\*{1,2}(?=\S)([^*]+?)(?<=\S)\*{1,2}(?![\w*])"), r"\1"),  # *emphasis*, **strong**
    (re.compile(r"</?(?:code|b|i|em|strong|p|br|tt|a)\b[^>]*>", re.I), ""),
]


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring's first paragraph of prose, as one line without markup; "" where there is none.

    A paragraph that is only the function's signature (C extensions write it there) is passed over. The sentence stops
    at a blank line, at a period followed by white space, and where doctests, field lists or sections begin.
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


def sentence_flaw(sentence: str) -> str | None:
    """Why a sentence is no query, in words for the counts of what was left out; None where it is one."""
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
