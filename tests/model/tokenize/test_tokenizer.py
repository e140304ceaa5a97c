"""BOS in front, EOS behind exactly once, whatever the text, its length, and who reads the saved tokenizer."""

import json
import shutil
from pathlib import Path

import pytest
from gemma_tokenizer import gemma_tokenizer
from tiny_model import TEXTS, tiny_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gemma4vec.errors import InputError
from gemma4vec.model.tokenize.tokenizer import TextTokenizer, load_saved_tokenizer, load_tokenizer
from gemma4vec.text.prompts import Prompted

EOS, BOS = 1, 2
# Nothing, blanks, controls, a lone surrogate, other scripts, an emoji of several code points, what looks like markup.
ODD = [
    "",
    " ",
    "\n\t\n",
    "\x00\x01\x1b[31m\x7f",
    "a\ud800b",
    "дом 東京 مرحبا",
    "👩‍👩‍👧",
    "<unused1> </s> [MASK]",
    "\ufeff\u200b",
]
ORDINARY = TEXTS[::60]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def ids_of(tokenizer: TextTokenizer, text: str, limit: int = 64, prompt: str = "") -> list[int]:
    return list(tokenizer.encode([Prompted(prompt, text)], limit)[0].ids)


@pytest.mark.parametrize("limit", [4, 5, 9, 64])
@pytest.mark.parametrize("text", [*ORDINARY, *ODD, "x" * 1000])
def test_bos_is_first_and_eos_last_and_once_also_after_truncation(folder: Path, text: str, limit: int) -> None:
    with_eos, without = load_tokenizer(folder, append_eos=True), load_tokenizer(folder, append_eos=False)
    ids = ids_of(with_eos, text, limit)
    assert ids[0] == BOS and ids[-1] == EOS and ids.count(EOS) == ids.count(BOS) == 1
    assert len(ids) <= limit and all(0 <= token < 400 for token in ids)
    plain = ids_of(without, text, limit)
    assert plain[0] == BOS and EOS not in plain and len(plain) <= limit
    # Cut or not, both read the same beginning of the text.
    whole = tiny_tokenizer()(text.encode("utf-8", "replace").decode())["input_ids"]
    assert plain == whole[:limit] and ids[:-1] == whole[: limit - 1]


def test_a_hundred_thousand_characters_are_cut_and_counted(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, append_eos=True)
    texts = [Prompted("p: ", "read file " * 10_000), Prompted("p: ", " "), Prompted("p: ", "list")]
    found = tokenizer.encode(texts, 128)
    assert found[0].length == 128
    assert (tokenizer.counts.texts, tokenizer.counts.empty, tokenizer.counts.at_limit) == (3, 1, 1)
    assert tokenizer.counts.tokens == sum(tokens.length for tokens in found)
    assert tokenizer.counts.as_dict()["tokens"] == tokenizer.counts.tokens
    assert tokenizer.encode([], 128) == [] and tokenizer.counts.texts == 3


@pytest.mark.parametrize("append_eos", [True, False])
def test_a_prompt_counts_its_tokens_without_a_closing_eos(folder: Path, append_eos: bool) -> None:
    tokenizer = load_tokenizer(folder, append_eos=append_eos)
    prompt = "task: search result | query: "
    expected = len(tiny_tokenizer()(prompt)["input_ids"])  # BOS and the prompt
    found = tokenizer.encode([Prompted(prompt, "read"), Prompted("", "read"), Prompted(prompt, "")], 64)
    assert [tokens.prompt for tokens in found] == [expected, 0, expected]
    # A prompt that is cut counts as what is left of it.
    assert tokenizer.encode([Prompted(prompt, "read")], 6)[0].prompt == 6


@pytest.mark.parametrize("append_eos", [True, False])
@pytest.mark.parametrize("kind", ["generic", "gemma", "gemma that says add_bos_token"])
def test_the_saved_tokenizer_does_the_same_everywhere(tmp_path: Path, append_eos: bool, kind: str) -> None:
    base = tmp_path / "base"
    if kind == "generic":
        tiny_tokenizer().save_pretrained(base)
    else:
        gemma_tokenizer(says_so="says" in kind).save_pretrained(base)
    ours = load_tokenizer(base, append_eos=append_eos)
    ours.hf_tokenizer.save_pretrained(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    own = load_saved_tokenizer(tmp_path / "saved")
    quick = load_tokenizer(base, append_eos=append_eos, ids_alone=True)
    assert quick.hf_tokenizer.all_special_ids == ours.hf_tokenizer.all_special_ids
    assert theirs.pad_token_id == own.padding_id == ours.padding_id == quick.padding_id
    for text in [*ORDINARY, *(text for text in ODD if "\ud800" not in text), "read the file " * 30]:
        for limit in (5, 64):
            expected = ids_of(ours, text, limit)
            assert expected[0] == BOS and (expected[-1] == EOS) == append_eos
            assert theirs(text, truncation=True, max_length=limit)["input_ids"] == expected
            assert ids_of(own, text, limit) == expected == ids_of(quick, text, limit)


def test_a_base_without_bos_gets_none(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    tokenizer.save_pretrained(tmp_path)
    assert BOS not in ids_of(load_tokenizer(tmp_path, append_eos=False), "read")
    assert ids_of(load_tokenizer(tmp_path, append_eos=True), "read")[-1] == EOS
    # Not one token for an empty text: one padding token stands for it, since a vector needs a state.
    tokens = load_tokenizer(tmp_path, append_eos=False).encode([Prompted("", "")], 8)[0]
    assert list(tokens.ids) == [0] and tokens.prompt == 0


@pytest.mark.parametrize("template", [["$A", "<pad>"], ["<bos>", "$A", "<pad>"], ["$A", "<unk>", "<pad>"]], ids=str)
def test_the_bases_own_closing_token_is_used_and_reported(
    folder: Path, tmp_path: Path, log_lines: list[str], template: list[str]
) -> None:
    """As Qwen3-Embedding closes texts with another token than its eos_token."""
    tokenizer = tiny_tokenizer()
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<bos>", "<unk>", "<pad>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=special)
    tokenizer.save_pretrained(folder)
    ours = load_tokenizer(folder, append_eos=True)
    assert log_lines == ["texts end with <pad>, as the base's own tokenizer ends them (its eos_token is <eos>)"]
    ours.hf_tokenizer.save_pretrained(tmp_path / "saved")
    own = load_saved_tokenizer(tmp_path / "saved")
    for text in ("read the file", "read the file " * 30):
        ids = ids_of(ours, text, 9)
        assert ids[-1] == 0 and EOS not in ids and ids.count(0) == 1 and (ids[0] == BOS) == (template[0] == "<bos>")
        assert ids_of(own, text, 9) == ids
    (found,) = own.encode([Prompted("query: ", "read")], 64)
    assert found.prompt == len(tiny_tokenizer()("query: ", add_special_tokens=False)["input_ids"]) + (
        template[0] == "<bos>"
    )
    assert 0 not in ids_of(load_tokenizer(folder, append_eos=False), "read")  # a readout that needs none gets none
    without_eos = without(folder, "eos_token")
    assert load_tokenizer(without_eos, append_eos=False).closing_id is None


def test_padding_that_a_file_asks_for_is_no_closing_token(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.enable_padding(length=16, pad_id=0, pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    assert load_tokenizer(folder, append_eos=True).closing_id == EOS


def without(folder: Path, *names: str) -> Path:
    """The tokenizer at `folder` without some of its special tokens."""
    plain = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer().backend_tokenizer,
        **{name: f"<{name[:3]}>" for name in ("bos_token", "eos_token", "pad_token") if name not in names},
    )
    shutil.rmtree(folder)
    plain.save_pretrained(folder)
    return folder


def test_special_tokens_that_are_missing(folder: Path) -> None:
    assert load_tokenizer(without(folder, "pad_token"), append_eos=True).padding_id == EOS
    with pytest.raises(InputError, match=r"^model\.readout: it needs an EOS token, .* has none"):
        load_tokenizer(without(folder, "eos_token"), append_eos=True)
    assert load_tokenizer(folder, append_eos=False).padding_id == 0
    with pytest.raises(InputError, match=r"^model\.base: the tokenizer at .* neither a padding nor an EOS token"):
        load_tokenizer(without(folder, "eos_token", "pad_token"), append_eos=False)


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_tokenizer_that_cannot_be_read_is_one_line(folder: Path, damage: str) -> None:
    if damage == "missing":
        shutil.rmtree(folder)
        folder.mkdir()
    else:
        (folder / "tokenizer.json").write_text("")
    for load in (lambda: load_tokenizer(folder, append_eos=False), lambda: load_saved_tokenizer(folder)):
        with pytest.raises(InputError) as caught:
            load()
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("limit", ["{}", '"x"', "[1]"])
def test_a_limit_that_is_no_number_is_one_line(folder: Path, limit: str) -> None:
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) | {"model_max_length": json.loads(limit)}
    file.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(InputError, match="cannot read a tokenizer"):
        load_tokenizer(folder, append_eos=False)


def test_a_token_with_a_huge_id_is_refused(folder: Path) -> None:
    file = folder / "tokenizer.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    whole["model"]["vocab"][next(iter(whole["model"]["vocab"]))] = 2**31
    file.write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(InputError, match="has a token of the id 2147483648"):
        load_tokenizer(folder, append_eos=False)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_half_a_character_in_the_settings_is_refused(folder: Path, name: str) -> None:
    file = folder / name
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps(settings | {"backend": "\ud800"}), encoding="utf-8")
    with pytest.raises(InputError, match=f"{name}: a lone surrogate"):
        load_tokenizer(folder, append_eos=False)


@pytest.mark.parametrize("merges", [[["a", "b"]], ["a b"]])
def test_merges_without_the_prefix_of_subwords_are_refused(folder: Path, merges: list[object]) -> None:
    file = folder / "tokenizer.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    whole["model"] |= {"type": "BPE", "continuing_subword_prefix": "bm25", "merges": merges}
    file.write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(InputError, match="the merge with 'b' lacks the prefix of subwords, 'bm25'"):
        load_tokenizer(folder, append_eos=False)


def test_two_tokens_with_one_id_are_refused(folder: Path) -> None:
    file = folder / "tokenizer.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    names = list(whole["model"]["vocab"])
    whole["model"]["vocab"][names[-1]] = whole["model"]["vocab"][names[-2]]
    file.write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(InputError, match=r"one id, .*check tokenizer.json or download it again"):
        load_tokenizer(folder, append_eos=False)
