"""Which written questions are kept, beside a slow filter that computes every reason for every question."""

import math
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest

from gemma4vec.data.documents.section import Section
from gemma4vec.data.questions import filter_questions as rules
from gemma4vec.data.questions.filter_questions import WrittenQuestion, copied_share, filter_questions, is_question
from gemma4vec.retrieval.tokenize import tokenize_text

NOUNS = ("harbor", "orchard", "ladder", "kettle", "violin", "glacier", "needle", "saddle", "lantern", "anchor")
VERBS = ("paint", "repair", "carry", "borrow", "polish", "measure")


def section(key: str, text: str, part: int = 1, title: str = "") -> Section:
    return Section(key, key.partition("#")[0], (title,) if title else (), text, part=part)


def corpus() -> list[Section]:
    """Sections of a few words each, two of them parts of one."""
    drawn = random.Random(3)
    found = []
    for number in range(12):
        words = [drawn.choice(NOUNS + VERBS) for _ in range(30)]
        found.append(section(f"{number}.md#x", f"people {' '.join(words)} each spring", title=NOUNS[number % 10]))
    found.append(section("0.md#x~2", "people polish the needle each autumn", part=2, title=NOUNS[0]))
    return found


def written(sections: Sequence[Section]) -> list[WrittenQuestion]:
    """Questions of every kind: good, bad, copied, repeated, of no section."""
    drawn = random.Random(5)
    ids = [*(one.id for one in sections), "elsewhere.md#x"]
    found = [WrittenQuestion("1.md#x", "What must I not do here?"), WrittenQuestion("2.md#x", "what do people ask?")]
    for number in range(150):
        words = [drawn.choice(NOUNS + VERBS) for _ in range(drawn.randint(1, 4))]
        text = f"how do I {' '.join(words)} {drawn.choice(('', 'there', 'there there there there there'))}".strip()
        key = drawn.choice(ids)
        if number % 7 == 0:
            copied = sections[number % 12]
            key, text = copied.id, f"why {' '.join(copied.text.split()[number % 20 : number % 20 + 7])}"
        found.append(WrittenQuestion(key, text + drawn.choice(("?", "?", "?", ".", "? and ?"))))
    return found


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W]+", unicodedata.normalize("NFKC", text).casefold())


def every_reason(
    one: WrittenQuestion, all_written: Sequence[WrittenQuestion], sections: Sequence[Section], first: int
) -> list[str]:
    """Every reason against a question, in the order in which the filter looks."""
    own = [other for other in sections if other.id == one.section]
    words = words_of(one.question)
    found = []
    if not own:
        return [rules.HELD_OUT]
    if (
        not (one.question.endswith("?") and one.question.count("?") == 1 and 4 <= len(words) <= 24)
        or len(set(words)) < len(words) / 2
    ):
        found.append(rules.FORM)
    if words == words_of("What must I not do here?"):
        found.append(rules.EXAMPLE)
    if words == words_of("What do people ask?"):
        found.append(rules.TESTED)
    if sum(words_of(other.question) == words for other in all_written) > 1:
        found.append(rules.REPEATED)
    text = words_of(f"{' '.join(own[0].headings)} {own[0].text}")
    runs = [words[start : start + 3] for start in range(len(words) - 2)]
    copied = [run for run in runs if any(text[at : at + 3] == run for at in range(len(text)))]
    if runs and len(copied) >= 0.6 * len(runs):
        found.append(rules.COPY)
    best: dict[str, float] = defaultdict(float)
    for other, score in zip(sections, bm25(one.question, sections), strict=True):
        best[other.unit] = max(best[other.unit], score)
    mine = best[own[0].unit]
    if mine == 0 or 1 + sum(score > mine * (1 + 1e-6) for score in best.values()) > first:
        found.append(rules.LOST)
    return found


def bm25(query: str, sections: Sequence[Section]) -> list[float]:
    """Lucene's BM25 of title and text, k1 = 0.9, b = 0.4, by the formula."""
    documents = [tokenize_text(f"{' '.join(one.headings)} {one.text}") for one in sections]
    average = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for token in tokenize_text(query):
            holding = sum(token in other for other in documents)
            count = document.count(token)
            idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
            score += idf * count / (count + 0.9 * (0.6 + 0.4 * len(document) / average)) if count else 0.0
        scores.append(score)
    return scores


@pytest.mark.parametrize("first", [1, 3])
def test_what_is_kept_is_what_a_slow_filter_keeps(first: int) -> None:
    sections = corpus()
    asked = written(sections)
    found = filter_questions(
        asked, sections, examples=["what must I NOT do here"], tested=["What do people ask"], first=first
    )
    reasons = [every_reason(one, asked, sections, first) for one in asked]
    assert found.kept == [one for one, against in zip(asked, reasons, strict=True) if not against]
    assert found.left_out == Counter(against[0] for against in reasons if against)
    everything = {rules.HELD_OUT, rules.FORM, rules.EXAMPLE, rules.TESTED, rules.REPEATED, rules.COPY, rules.LOST}
    assert set(found.left_out) == everything and len(found.kept) > 2


def test_a_question_without_a_corpus_is_of_no_document() -> None:
    assert filter_questions([WrittenQuestion("a", "Is this one kept?")], []).left_out == {rules.HELD_OUT: 1}


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("How do I set a proxy?", True),
        ("Wie setze ich den Proxy？", True),
        ("How do I set a proxy", False),
        ("A proxy?", False),
        ("How? How do I set a proxy?", False),
        ("How do I\nset a proxy?", False),
        ("what is is is is is is?", False),
        (" ".join(f"word{n}" for n in range(25)) + "?", False),
        ("", False),
    ],
)
def test_questions_are_well_formed(text: str, good: bool) -> None:
    assert is_question(text) == good


def test_shares_of_words_that_are_copied() -> None:
    text = "Name the proxy in HTTPS_PROXY before the first call."
    assert copied_share("Is the Proxy in https_proxy before the first call?", text) == 6 / 7
    assert copied_share("where do I name it?", text) == 0.0 == copied_share("the proxy", text)
