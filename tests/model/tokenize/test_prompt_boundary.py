"""Where a prompt ends: the first word of a text is pooled where the prompt is not, by us and by everybody else."""

from pathlib import Path

import pytest
from gemma_tokenizer import gemma_tokenizer
from tiny_model import TEXTS, tiny_tokenizer
from tiny_saved import save_tiny
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.tokenize.prompt_boundary import save_tokenizer
from gemma4vec.model.tokenize.tokenizer import TextTokenizer, load_saved_tokenizer, load_tokenizer
from gemma4vec.text.prompts import RETRIEVAL, Document, Prompted, Prompts

TITLE = 'A "title" | (with) \\odd\n{title} marks'


def loaded(folder: Path, tokenizer: PreTrainedTokenizerFast, prompts: Prompts | None) -> TextTokenizer:
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder, append_eos=False, unpooled_prompts=prompts)


@pytest.mark.parametrize("make", [tiny_tokenizer, lambda: gemma_tokenizer(says_so=True)], ids=["bytes", "gemma"])
def test_a_prompt_ends_in_front_of_the_first_word(tmp_path: Path, make: object) -> None:
    plain = loaded(tmp_path / "plain", make(), None)  # type: ignore[operator]
    apart = loaded(tmp_path / "apart", make(), RETRIEVAL)  # type: ignore[operator]
    for prompted in (
        RETRIEVAL.for_query("sort"),
        RETRIEVAL.for_document("sort"),
        RETRIEVAL.for_document(Document("sort the tree", TITLE)),
    ):
        (before,), (now,) = plain.encode([prompted], 256), apart.encode([prompted], 256)
        assert now.ids == before.ids  # what is read did not change
        assert now.prompt == before.prompt - 1
        # The prompt's own tokens, and none of the text's.
        text = apart.hf_tokenizer.decode(now.ids[now.prompt :])
        assert text.strip() == prompted.text and len(now.ids) > now.prompt


def test_no_other_text_is_changed(tmp_path: Path) -> None:
    plain, apart = loaded(tmp_path / "a", tiny_tokenizer(), None), loaded(tmp_path / "b", tiny_tokenizer(), RETRIEVAL)
    query, document = RETRIEVAL.for_query("").prompt, RETRIEVAL.for_document("").prompt
    texts = [
        *TEXTS[::60],
        "sort ",
        "  ",
        "",
        f"x{query}",
        f"{query}sort ",
        f"{document} \n",
        f"see {document}",
        query[1:],
    ]
    for text in texts:
        assert apart.encode([Prompted("", text)], 99)[0].ids == plain.encode([Prompted("", text)], 99)[0].ids, text
    assert (
        len(apart.encode([Prompted("", query)], 99)[0].ids) == len(plain.encode([Prompted("", query)], 99)[0].ids) - 1
    )


@pytest.mark.parametrize("prompts", [Prompts("q:", "d:\n"), Prompts()])
def test_a_prompt_without_a_closing_space_needs_no_rule(tmp_path: Path, prompts: Prompts) -> None:
    apart = loaded(tmp_path, tiny_tokenizer(), prompts)
    assert apart.hf_tokenizer.backend_tokenizer.normalizer is None


@pytest.mark.parametrize("make", [tiny_tokenizer, lambda: gemma_tokenizer(says_so=True)], ids=["bytes", "gemma"])
def test_everybody_who_opens_the_saved_tokenizer_counts_the_same(tmp_path: Path, make: object) -> None:
    ours = loaded(tmp_path / "base", make(), RETRIEVAL)  # type: ignore[operator]
    save_tokenizer(ours.hf_tokenizer, tmp_path / "saved", keep_normalizer=True)
    theirs, again = AutoTokenizer.from_pretrained(tmp_path / "saved"), load_saved_tokenizer(tmp_path / "saved")
    prompt = RETRIEVAL.query
    for text in (prompt, prompt + "sort", prompt + " ", "a  b ", "\n x", RETRIEVAL.for_document("").prompt, "<eos> a"):
        ids = ours.hf_tokenizer(text)["input_ids"]
        assert theirs(text)["input_ids"] == ids and again.hf_tokenizer(text)["input_ids"] == ids


def test_lengths_of_titles_are_not_kept_forever(tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path, tiny_tokenizer(), RETRIEVAL)
    documents = [RETRIEVAL.for_document(Document("read", f"title {n}")) for n in range(3000)]
    for start in range(0, 3000, 600):
        found = tokenizer.encode(documents[start : start + 600], 64)
        assert [t.prompt for t in found[:3]] == [
            len(tokenizer.hf_tokenizer(d.prompt)["input_ids"]) for d in documents[start : start + 3]
        ]
    assert len(tokenizer.prompt_lengths) <= 2000


@pytest.mark.parametrize("kind", ["attention", "echo"])
def test_one_word_has_a_vector_of_its_own(tmp_path: Path, kind: str) -> None:
    """Readouts of ours: `pool_prompt: false` on Gemma 3, and the second copy of an echo."""
    embedder = Embedder.load(save_tiny(tmp_path, kind), dtype="fp32")
    (tokens,) = embedder.read([embedder.prompts.for_query("sort")], 64)
    prompt = len(embedder.tokenizer.hf_tokenizer(embedder.prompts.query)["input_ids"])
    assert tokens.prompt == prompt
    if kind == "echo":
        twice = embedder.tokenizer.hf_tokenizer.decode(tokens.ids[prompt:])
        assert twice.split() == ["sort", "sort"]
