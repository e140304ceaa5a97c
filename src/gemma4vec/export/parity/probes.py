"""The texts on which an export is compared: traps, lengths around the limit, and texts of the dev suite."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gemma4vec.export.limits import MIN_TEXTS
from gemma4vec.export.runtimes.job import Role, RoleText

TRAPS = (
    "",
    " ",
    "\n",
    "\t \n ",
    "x",
    ".",
    "0",
    "  leading",
    "trailing  ",
    "a  b   c    d",
    "line\nline\r\nline\rline",
    "tab\tseparated\tvalues",
    "\n\n\n\nfour line breaks",
    "1234567890 3.14159 1,000,000 0xDEADBEEF",
    "CamelCase snake_case kebab-case SHOUTING",
    "def f(x):\n    return x[1:-1] if x else None\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    "SELECT * FROM t WHERE a = 'b' AND c <> \"d\";",
    "# Title\n\n- item **bold** `code`\n\n| a | b |\n|---|---|\n",
    '{"key": [1, 2.5, null, true], "text": "a \\"quoted\\" word"}',
    "<p class='a'>text &amp; more</p><br/>",
    "https://example.org/path?query=1&other=%20#part",
    "user@example.org +49 (0)30 123-456",
    "<bos>",
    "<eos>",
    "<pad>",
    "<unk>",
    "<mask>",
    "<eos> in front",
    "behind <eos>",
    "in <bos> the <eos> middle <pad> of <unk> it",
    "<start_of_turn>user\nhello<end_of_turn>\n",
    "<unused0><unused1>",
    "[CLS] [SEP] [MASK] <s> </s> <|endoftext|>",
    "<0x41><0x0A>",
    "\u2581word\u2581word",
    "Grüße aus Köln, naïve café, Ærøskøbing",
    "e\u0301 is not \u00e9 and \ufb01 is not fi",
    "ΑΒΓ αβγ ϑ",
    "Съешь ещё этих мягких французских булок",
    "أبجد هوز حطي كلمن",
    "שלום עולם",
    "नमस्ते दुनिया क्षत्रिय",
    "สวัสดีชาวโลก",
    "こんにちは世界 カタカナ ｶﾀｶﾅ",
    "中文分词没有空格",
    "한국어 문장입니다",
    "Tiếng Việt có dấu",
    "🙂 👍🏽 👨‍👩‍👧‍👦 🇩🇪 ❤️",
    "zero\u200bwidth\u200cjoin\u200der",
    "\u202eright to left\u202c",
    "\ufeffbyte order mark",
    "non\u00a0breaking\u2009thin\u3000wide",
    "soft\u00adhyphen",
    "control \x01\x02\x1b[31mred\x7f",
    "private \ue000 and \U000f0000",
    "unassigned \u0378 noncharacter \ufdd0",
    "\U0001d54f\U0001d552 \U00020000 \U0001f9ff",
    "a\u0300\u0301\u0302\u0303\u0304 stacked marks",
    "ﷺ ㍿ ½ ① ™",
    "“typographic” ‘quotes’ – — … «»",
    "∀x∈ℝ: ∑ᵢ xᵢ² ≥ 0 ⇒ √x",
    "same same same same same same same same",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "The quick brown fox jumps over the lazy dog.",
)
# Words for texts of a given length and for models without enough texts of their own.
_SENTENCE = (
    "open read write file path sort list tree graph node edge name value key data time find first last small large "
    "water light city river paper stone green cold early never always about under between"
)
_WORDS = _SENTENCE.split()
_WHOLE = 200  # longest text of a dev suite that is taken, in words


@dataclass(frozen=True)
class Probe:
    """A text, and why it is there.

    Attributes:
        text: with its role.
        why: "trap", "limit-1", "limit", "limit+1", "suite" or "words".
        tokens: number of its tokens, not truncated.
        over: whether these are more than the model's limit.
    """

    text: RoleText
    why: str
    tokens: int
    over: bool


def make_probes(
    queries: Sequence[str],
    documents: Sequence[str],
    count: Callable[[RoleText], int],
    limit: int,
) -> list[Probe]:
    """At least `limits.MIN_TEXTS` different texts.

    Args:
        queries: of the dev suite.
        documents: of the dev suite.
        count: number of tokens of a text with its prompt and special tokens, not truncated.
        limit: the model's limit in tokens.
    """
    roles: tuple[Role, Role] = ("query", "document")

    def probe(text: RoleText, why: str) -> Probe:
        tokens = count(text)
        return Probe(text, why, tokens, tokens > limit)

    probes = [probe(RoleText(role, text), "trap") for text in TRAPS for role in roles]
    for role in roles:
        for offset, why in ((-1, "limit-1"), (0, "limit"), (1, "limit+1")):
            text = _of_length(role, limit + offset, count)
            if text is not None:
                probes.append(probe(text, why))
    taken = {one.text for one in probes}
    pairs = itertools.zip_longest(
        (RoleText("query", text) for text in queries), (RoleText("document", text) for text in documents)
    )
    suite = (
        RoleText(one.role, " ".join(one.text.split()[:_WHOLE])) for pair in pairs for one in pair if one is not None
    )
    made = (
        RoleText(roles[number % 2], " ".join(words)) for number, words in enumerate(itertools.permutations(_WORDS, 3))
    )
    for why, texts in (("suite", itertools.islice(suite, MIN_TEXTS)), ("words", made)):
        for text in texts:
            if len(probes) >= MIN_TEXTS:
                break
            one = probe(text, why)
            if text not in taken and not one.over:
                taken.add(text)
                probes.append(one)
    return probes


def _of_length(role: Role, wanted: int, count: Callable[[RoleText], int]) -> RoleText | None:
    """A text of `wanted` tokens; None if no number of our words gives it."""
    if wanted <= count(RoleText(role, "")):
        return None
    for words in (_WORDS, ["a"], ["x", "y"]):

        def made(number: int, words: Sequence[str] = words) -> RoleText:
            return RoleText(role, " ".join(itertools.islice(itertools.cycle(words), number)))

        low, high = 1, max(2, 4 * wanted)  # a word is at least one token
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if count(made(middle)) < wanted else (low, middle)
        for cut in (made(low), *(RoleText(role, made(low).text[:-end]) for end in range(1, 12))):
            if count(cut) == wanted:
                return cut
    return None
