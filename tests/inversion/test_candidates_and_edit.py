"""Candidates are ranked by their own vectors; edits raise the cosine; proposals follow the gradient."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from float64_norms import use_float64_norms
from tiny_model import TEXTS, write_tiny
from tiny_saved import save_tiny

from gemma4vec.errors import InputError
from gemma4vec.inversion.candidates import Candidate, clean, find_candidates
from gemma4vec.inversion.decoder import VectorDecoder
from gemma4vec.inversion.edit import Editor, check_editable, cosine_gradient
from gemma4vec.inversion.generate import Written
from gemma4vec.model.encoder.build import build
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.inverter.decoder_folder import read_facts
from gemma4vec.recipe import schema
from gemma4vec.text.text_hash import words_key


@pytest.fixture(scope="module")
def encoder(trained: Any) -> Embedder:
    opened = Embedder.load(trained.encoder, dtype="fp32")
    assert isinstance(opened, Embedder)
    return opened


@pytest.fixture(scope="module")
def decoder(trained: Any, encoder: Embedder) -> VectorDecoder:
    return VectorDecoder.load(trained.run, encoder, dtype="fp32")


@pytest.fixture(scope="module")
def held_out(trained: Any) -> list[str]:
    hashes = set(read_facts(trained.run / "model").held_out)
    texts = {words_key(text): text for text in TEXTS}
    return [texts[one] for one in sorted(hashes)]


def words_in_common(one: str, other: str) -> float:
    return len(set(one.split()) & set(other.split())) / max(1, len(set(one.split()) | set(other.split())))


def test_a_trained_decoder_beats_shuffled_vectors_on_held_out_texts(
    encoder: Embedder, decoder: VectorDecoder, held_out: list[str]
) -> None:
    vectors = encoder.encode_query(held_out)
    own = [texts[0] for texts in find_candidates(decoder, encoder, vectors, 1)]
    shuffled = [texts[0] for texts in find_candidates(decoder, encoder, np.roll(vectors, 1, axis=0), 1)]
    overlap = [np.mean([words_in_common(a.text, b) for a, b in zip(x, held_out, strict=True)]) for x in (own, shuffled)]
    assert overlap[0] > overlap[1] + 0.2
    of_shuffled = encoder.encode_query([one.text for one in shuffled])
    assert np.mean([one.cosine for one in own]) > (of_shuffled * vectors).sum(axis=1).mean() + 0.005


def test_more_candidates_come_nearer_and_cosines_are_those_of_the_texts(
    encoder: Embedder, decoder: VectorDecoder, held_out: list[str]
) -> None:
    vectors = encoder.encode_query(held_out[:12])
    one, many = (find_candidates(decoder, encoder, vectors, n) for n in (1, 8))
    for row, (first, several) in enumerate(zip(one, many, strict=True)):
        assert len(first) == 1 and first[0].how == "greedy"
        # The same text in another batch: its cosine differs by fp32 rounding.
        assert several[0].cosine >= first[0].cosine - 1e-6 and first[0].text in {each.text for each in several}
        assert [each.cosine for each in several] == sorted((each.cosine for each in several), reverse=True)
        assert len({each.text for each in several}) == len(several) <= 8
        expected = encoder.encode_query([each.text for each in several]) @ vectors[row]
        assert np.allclose([each.cosine for each in several], expected, atol=1e-5)
    assert np.mean([x[0].cosine for x in many]) > np.mean([x[0].cosine for x in one])
    again = find_candidates(decoder, encoder, vectors[5:6], 8, first=5)[0]
    assert [each.text for each in again] == [each.text for each in many[5]]
    beams = find_candidates(decoder, encoder, vectors[:2], 4, beams=3)
    assert {each.how for texts in beams for each in texts} <= {"greedy", "beam"}
    for n, width in ((0, 0), (3, 4)):
        with pytest.raises(InputError, match="give at least one text, and beams among them"):
            find_candidates(decoder, encoder, vectors, n, beams=width)


def test_control_characters_are_taken_out_and_counted(
    encoder: Embedder, decoder: VectorDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clean("a\x1b[31mb\u202e\ufffd c\n") == ("a[31mb c\n", 3)
    monkeypatch.setattr(VectorDecoder, "text", lambda self, written: "bell\x07 \x1bend")
    monkeypatch.setattr(VectorDecoder, "greedy", lambda self, vectors: [Written((5,), -1.0, True)])
    ((found,),) = find_candidates(decoder, encoder, encoder.encode_query(["x"]), 1)
    assert (found.text, found.cleaned) == ("bell end", 2)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_proposals_gain_is_the_slope_of_the_cosine(
    attention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_float64_norms(monkeypatch)
    base = write_tiny(tmp_path, "gemma3", layers=2)
    settings = {"base": str(base), "lora": None, "attention": attention, "max_tokens": 60, "head": {"widths": [6]}}
    built = build(schema.Model.model_validate(settings), base, dtype=torch.float64)
    model = Embedder(built, name="x", fingerprint="x", max_tokens=60)
    target = np.random.default_rng(0).standard_normal(6)
    prompted = model.prompts.for_query("read the file")
    places = list(range(27, 30))
    gradient, ids = cosine_gradient(model, prompted, target)
    assert len(gradient) == len(ids)
    layer: Any = built.encoder.backbone.model.get_input_embeddings()
    scale = 32**0.5  # the layer's output is its row times this

    def cosine(place: int, token: int, share: float) -> float:
        def mix(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            cell = output.view(-1, 32)[place]
            output.view(-1, 32)[place] = (1 - share) * cell + share * layer.weight[token] * scale
            return output

        handle = layer.register_forward_hook(mix)
        try:
            tokens = model.read([prompted], 60)
            return float(torch.from_numpy(model.encode_tokens(tokens)[0].astype(np.float64)) @ torch.from_numpy(target))
        finally:
            handle.remove()

    monkeypatch.setattr(Embedder, "encode_tokens", lambda self, tokens: encode_wide(self, tokens))
    swaps = Editor(model, "query").propose_swaps(prompted, target, places, 6)
    assert [swap.gain for swap in swaps] == sorted((swap.gain for swap in swaps), reverse=True)
    for swap in swaps:
        slope = (cosine(swap.place, swap.token, 1e-5) - cosine(swap.place, swap.token, -1e-5)) / 2e-5
        assert slope == pytest.approx(swap.gain * scale, rel=1e-4)
        assert swap.place in places and swap.token not in (0, 1, 2, 3) and swap.token != int(ids[swap.place])


def encode_wide(model: Embedder, tokens: Any) -> np.ndarray:
    """Vectors in the model's own type."""
    with torch.no_grad():
        return model.encoder(model._pack(tokens)).numpy()


def test_edits_only_raise_the_cosine_and_find_a_swapped_word(encoder: Embedder) -> None:
    improved = 0
    for text in TEXTS[:60:6]:
        target = encoder.encode_query([text])[0]
        words = text.split()
        spoiled = " ".join([words[0], "graph" if words[1] != "graph" else "tree", *words[2:]])
        start = Candidate(spoiled, float(encoder.encode_query([spoiled])[0] @ target), "greedy", 1)
        found = Editor(encoder, "query").edit(target, start, 5)
        assert found.cosine >= start.cosine and found.cleaned == 1
        assert found.cosine == pytest.approx(float(encoder.encode_query([found.text])[0] @ target), abs=1e-5)
        assert (found.text == start.text) == (found.how == "greedy")
        improved += found.cosine > start.cosine + 1e-4
    assert improved >= 5
    assert Editor(encoder, "query").edit(target, start, 0) == start


def test_proposals_keep_the_prompt_and_change_one_token(encoder: Embedder) -> None:
    target = encoder.encode_document(["sort the tree"])[0]
    texts = Editor(encoder, "document").proposed_texts(target, "read the file", 20)
    assert len(texts) > 10 and all("code" not in text.split(":")[0] for text in texts)
    kept = [sum(word in text for word in ("read", " the", " file")) for text in texts]
    assert min(kept) >= 1 and np.mean([count >= 2 for count in kept]) > 0.9
    assert Editor(encoder, "query").proposed_texts(target, "", 5) == []


def test_encoders_without_gradients_are_refused(tmp_path: Path) -> None:
    class Other:
        name = "other"

    with pytest.raises(InputError, match=r"--edit: other is run by another library"):
        check_editable(Other())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"--edit: the readout echo_delta reads more than the text itself"):
        check_editable(Embedder.load(save_tiny(tmp_path, "echo"), dtype="fp32"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("causal-last", r"was trained on vectors of tiny-both-mean \(\w+\), not of this tiny-causal-last"),
        ("no-prompt-pooled", r"reads vectors of 32 dimensions, tiny-no-prompt-pooled makes 6"),
    ],
)
def test_the_decoder_of_another_encoder_is_refused(kind: str, message: str, trained: Any, tmp_path: Path) -> None:
    other = Embedder.load(save_tiny(tmp_path, kind), dtype="fp32")
    with pytest.raises(InputError, match=message):
        VectorDecoder.load(trained.run, other)


def test_another_role_and_damaged_folders_are_refused(trained: Any, encoder: Embedder, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(InputError, match=r"trained on vectors of the role query, not document"):
        VectorDecoder.load(trained.run, encoder, role="document")
    with pytest.raises(InputError, match=r"--decoder: there is no folder"):
        VectorDecoder.load(tmp_path / "none", encoder)
    with pytest.raises(InputError, match=r"holds no decoder \(decoder\.json\)"):
        VectorDecoder.load(trained.encoder, encoder)
    copy = tmp_path / "copy"
    shutil.copytree(trained.run / "model", copy)
    assert VectorDecoder.load(copy, Embedder.load(trained.encoder, dtype="bf16")).facts.role == "query"
    (copy / "prefix.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"the decoder in .* is damaged"):
        VectorDecoder.load(copy, encoder)
    (copy / "decoder.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match=r"has format 2, this release reads 1"):
        VectorDecoder.load(copy, encoder)
    (copy / "decoder.json").write_text('{"format": 1, "name": 3}')
    with pytest.raises(InputError, match=r"decoder\.json is damaged \(name: Input should be a valid string\)"):
        VectorDecoder.load(copy, encoder)
