"""GGUF reading and unpacking, against the gguf library's reader and against the weights that were written."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file
from tiny_gguf import HEADS, TOKENS, permuted, write_tiny

from gemma4vec.errors import InputError
from gemma4vec.model.bases.gguf_file import GgufFile
from gemma4vec.model.bases.gguf_model import hugging_face_name, unpermute, write_model_folder
from gemma4vec.model.bases.gguf_tokenizer import merges_of, write_tokenizer


@pytest.fixture(params=["gemma3", "llama"])
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_file_reads_as_the_gguf_library_reads_it(tmp_path: Path, architecture: str) -> None:
    write_tiny(tmp_path / "tiny.gguf", architecture)
    ours, theirs = GgufFile(tmp_path / "tiny.gguf"), GGUFReader(tmp_path / "tiny.gguf")
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            assert ours.metadata[key] == field.contents(), key
    assert len(ours.tensors) == len(theirs.tensors)
    for entry, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert entry.name == other.name
        np.testing.assert_array_equal(ours.read(entry), dequantize(other.data, other.tensor_type))


def test_the_weights_come_back(tmp_path: Path, architecture: str) -> None:
    written = write_tiny(tmp_path / "tiny.gguf", architecture)
    write_model_folder(tmp_path / "tiny.gguf", tmp_path)
    read = load_file(tmp_path / "model.safetensors")
    assert read.keys() == written.keys()
    for name, weight in written.items():
        stored = weight
        if ".mlp." in name:
            stored = dequantize(quantize(weight, GGMLQuantizationType.Q4_1), GGMLQuantizationType.Q4_1)
        # bf16 keeps 8 bits; a norm was stored as w + 1 in fp32, which costs it an absolute 1e-7
        np.testing.assert_allclose(read[name].float().numpy(), stored, rtol=2**-8, atol=1e-6, err_msg=name)


def test_transformers_agrees_on_every_weight(tmp_path: Path, architecture: str) -> None:
    """transformers' own GGUF loader, which is ten times slower on real files, is the oracle."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    write_tiny(tmp_path / "tiny.gguf", architecture)
    folder = tmp_path / "unpacked"
    folder.mkdir()
    write_model_folder(tmp_path / "tiny.gguf", folder)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="tiny.gguf", quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    ours = AutoModelForCausalLM.from_pretrained(folder)
    assert type(ours) is type(theirs)
    assert ours.dtype == torch.bfloat16
    expected = theirs.state_dict()
    for name, weight in ours.state_dict().items():
        # 1 ulp of bf16: transformers subtracts the norm's 1 in bf16 for some architectures
        torch.testing.assert_close(weight, expected[name], rtol=2**-7, atol=1e-6)
    for key in ("hidden_size", "num_key_value_heads", "head_dim", "vocab_size", "rope_parameters", "pad_token_id"):
        assert getattr(ours.config, key) == getattr(theirs.config, key), key


def test_the_tokenizer_puts_bos_first_and_round_trips(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_tiny(tmp_path / "tiny.gguf")
    folder = tmp_path / "unpacked"
    folder.mkdir()
    write_model_folder(tmp_path / "tiny.gguf", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("ab ab").input_ids
    assert [TOKENS[i] for i in ids] == ["<bos>", "ab", "\u2581ab"]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<bos>", "<eos>", "<pad>")
    for text in ("ab cd", "  ab\n\tj", "\u00fc\u6f22", "a" * 50):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_gemmas_tokenizer_is_written_as_transformers_writes_it(tmp_path: Path) -> None:
    """transformers' reader, which takes twice as long on real files, is the oracle: the same bytes."""
    from transformers import GemmaTokenizer

    write_tiny(tmp_path / "tiny.gguf")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    metadata = GgufFile(tmp_path / "tiny.gguf").metadata
    write_tokenizer(tmp_path / "tiny.gguf", metadata, ours)
    expected = GemmaTokenizer.from_pretrained(str(tmp_path), gguf_file="tiny.gguf")
    expected.chat_template = metadata.get("tokenizer.chat_template")
    expected.model_max_length = metadata["gemma3.context_length"]
    expected.save_pretrained(theirs)
    assert {file.name for file in ours.iterdir()} == {file.name for file in theirs.iterdir()}
    for file in theirs.iterdir():  # the library notes whether it was offline
        found = file.read_bytes().replace(b'"local_files_only": true', b'"local_files_only": false')
        assert (ours / file.name).read_bytes() == found, file.name


def test_merges_have_the_order_of_transformers() -> None:
    """A vocabulary in which cuts, equal lengths and nested merges abound."""
    from transformers.tokenization_utils_base import generate_merges

    random = np.random.default_rng(0)
    words = dict.fromkeys("".join(random.choice(list("abc"), random.integers(1, 7))) for _ in range(400))
    vocabulary = {word: number for number, word in enumerate([*"abc", *(word for word in words if len(word) > 1)])}
    expected = generate_merges(vocabulary, {word: -number for word, number in vocabulary.items()})
    assert len(expected) > 500
    assert merges_of(vocabulary) == expected


def test_unpermute_undoes_llama_cpps_permute() -> None:
    weight = np.arange(64 * 3, dtype=np.float32).reshape(64, 3)
    assert not np.array_equal(permuted(weight, HEADS), weight)
    np.testing.assert_array_equal(unpermute(permuted(weight, HEADS), HEADS), weight)


@pytest.mark.parametrize("keep", [3, 40, 5_000])
def test_a_file_cut_short_is_one_line(tmp_path: Path, keep: int) -> None:
    write_tiny(tmp_path / "tiny.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((tmp_path / "tiny.gguf").read_bytes()[:keep])
    with pytest.raises(InputError, match=r"cut\.gguf") as caught:
        write_model_folder(cut, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_cut_inside_a_tensor_is_one_line(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((tmp_path / "tiny.gguf").read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"ends inside tensor"):
        write_model_folder(cut, tmp_path)


def test_an_unknown_tensor_is_named() -> None:
    with pytest.raises(InputError, match=r"blk\.0\.attn_sinks"):
        hugging_face_name("blk.0.attn_sinks.weight", "gemma3")
