"""Generation: with keys and values kept as without; beams against all texts; the nucleus against its definition."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import write_tiny
from torch import Tensor

from gemma4vec.inversion.decoder import VectorDecoder, prefix_of
from gemma4vec.inversion.generate import Written, draw_from_nucleus, write_by_beams, write_by_nucleus, write_greedily
from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.backbone.lm_head import load_head
from gemma4vec.model.inverter.decoder_folder import DecoderFacts, OpenDecoder
from gemma4vec.model.inverter.frame import DecoderFrame, soft_tokens
from gemma4vec.model.inverter.prefix import Prefix
from gemma4vec.model.packing.packed_batch import Tokens, pad
from gemma4vec.model.tokenize.tokenizer import load_tokenizer

LIMIT = 12


def decoder_of(folder: Path) -> VectorDecoder:
    """An untrained decoder in float64 whose texts are longer than its windows."""
    backbone = load_backbone(folder, causal=True, dtype=torch.float64).eval().requires_grad_(False)
    tokenizer = load_tokenizer(folder, append_eos=False)
    frame = DecoderFrame.of(tokenizer, 3, 4 + LIMIT)
    prefix = Prefix(6, 3, backbone.input_size, hidden=None, size=1.0, seed=1).double().requires_grad_(False)
    facts = DecoderFacts(
        name="x",
        encoder="x",
        encoder_name="x",
        role="query",
        dimension=6,
        prefix_tokens=3,
        prefix_hidden=prefix.hidden,
        max_tokens=4 + LIMIT,
        text_tokens=frame.text_tokens,
        trained_texts=0,
        stored_texts=0,
        held_out=(),
        made_from={},
    )
    head = load_head(backbone, folder, "vector_to_text")
    return VectorDecoder(OpenDecoder(backbone, head, tokenizer, facts, folder, prefix, frame))


class SlowNextToken:
    """Every text computed whole at every step, by the packed forward pass that training uses."""

    def __init__(self, decoder: VectorDecoder, vectors: np.ndarray):
        self.decoder = decoder
        self.soft = [soft[None] for soft in prefix_of(decoder.parts, vectors)]
        self.ids: list[list[int]] = [[] for _ in vectors]

    def start(self) -> Tensor:
        return self._logits()

    def step(self, tokens: Tensor) -> Tensor:
        self.ids = [[*ids, token] for ids, token in zip(self.ids, tokens.tolist(), strict=True)]
        return self._logits()

    def select(self, rows: Tensor) -> None:
        self.ids = [self.ids[row] for row in rows.tolist()]
        self.soft = [self.soft[row] for row in rows.tolist()]

    def _logits(self) -> Tensor:
        parts, found = self.decoder.parts, []
        for ids, soft in zip(self.ids, self.soft, strict=True):
            (layout,) = pad([Tokens([*parts.frame.before, *ids])], 64, 0)
            with torch.no_grad():
                states = parts.backbone(layout, overrides=soft_tokens(parts.frame.prefix_cells(layout), soft))
                found.append(parts.head.logits(states[-1:]))
        return self.decoder.forbid(torch.cat(found))


def vectors(count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((count, 6)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def close(one: list[Written], other: list[Written]) -> bool:
    return [text.ids for text in one] == [text.ids for text in other] and bool(
        np.allclose([text.log_probability for text in one], [text.log_probability for text in other], atol=1e-5)
    )


@pytest.mark.parametrize("architecture", ["gemma3", "llama", "gemma4_text", "mistral"])
def test_kept_keys_and_values_change_no_text(architecture: str, tmp_path: Path) -> None:
    decoder, targets = decoder_of(write_tiny(tmp_path, architecture, layers=2, window=6)), vectors(4)
    end = decoder.parts.frame.end_id
    greedy = decoder.greedy(targets)
    assert close(greedy, write_greedily(SlowNextToken(decoder, targets), 4, end_id=end, limit=LIMIT))
    assert max(len(text.ids) for text in greedy) == LIMIT and len({text.ids for text in greedy}) > 1
    sampled = decoder.nucleus(targets, 2, temperature=2.0, seed=3)
    draws = np.stack([np.random.default_rng([3, v, t]).random(LIMIT) for v in range(4) for t in range(2)])
    slow = SlowNextToken(decoder, np.repeat(targets, 2, axis=0))
    assert close(
        [text for texts in sampled for text in texts], write_by_nucleus(slow, draws, end_id=end, temperature=2.0)
    )
    beams = decoder.beams(targets, 3)
    expected = write_by_beams(SlowNextToken(decoder, targets), 4, 3, end_id=end, limit=LIMIT)
    assert all(close(one, other) for one, other in zip(beams, expected, strict=True))


def test_a_vectors_texts_do_not_depend_on_the_others(tmp_path: Path) -> None:
    decoder, targets = decoder_of(write_tiny(tmp_path, "gemma3", layers=2)), vectors(5)
    together, alone = decoder.nucleus(targets, 3, seed=1), decoder.nucleus(targets[3:4], 3, seed=1, first=3)
    assert close(together[3], alone[0]) and not close(decoder.nucleus(targets, 3, seed=2)[3], alone[0])
    assert close(decoder.greedy(targets)[2:3], decoder.greedy(targets[2:3]))
    ids = {token for texts in together for text in texts for token in text.ids}
    assert not ids & {0, 1, 2, 3}  # padding, end, BOS, unknown


class Table:
    """Logits that depend on the tokens before, by a table."""

    def __init__(self, starts: list[int]):
        self.rows = [(start,) for start in starts]

    @staticmethod
    def logits(before: tuple[int, ...]) -> np.ndarray:
        return 2 * np.random.default_rng([*before, len(before)]).standard_normal(4)

    def start(self) -> Tensor:
        return torch.from_numpy(np.stack([self.logits(row) for row in self.rows]))

    def step(self, tokens: Tensor) -> Tensor:
        self.rows = [(*row, token) for row, token in zip(self.rows, tokens.tolist(), strict=True)]
        return self.start()

    def select(self, rows: Tensor) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]


def every_text(start: int, limit: int, end: int) -> list[tuple[float, tuple[int, ...]]]:
    """(log-probability, tokens) of every text of at most `limit` tokens, best first; `limit` tokens need no end."""
    found = []
    for length in range(limit + 1):
        for ids in product(*[[token for token in range(4) if token != end]] * length):
            words = [*ids, end] if length < limit else list(ids)
            total, before = 0.0, (start,)
            for word in words:
                logits = Table.logits(before)
                total += logits[word] - np.log(np.exp(logits).sum())
                before = (*before, word)
            found.append((total, ids))
    return sorted(found, reverse=True)


def test_wide_beams_find_the_best_of_all_texts() -> None:
    found = write_by_beams(Table([5, 9, 11]), 3, 200, end_id=3, limit=4)
    for start, texts in zip((5, 9, 11), found, strict=True):
        expected = every_text(start, 4, 3)
        assert [text.ids for text in texts] == [ids for _, ids in expected]
        assert np.allclose([text.log_probability for text in texts], [total for total, _ in expected])
        assert all(text.ended == (len(text.ids) < 4) for text in texts)


def test_narrow_beams_are_never_worse_than_greedy_and_wider_ones_help_somewhere() -> None:
    starts = list(range(16))
    greedy = write_greedily(Table(starts), 16, end_id=3, limit=5)
    narrow = write_by_beams(Table(starts), 16, 1, end_id=3, limit=5)
    wide = write_by_beams(Table(starts), 16, 4, end_id=3, limit=5)
    best = [every_text(start, 5, 3)[0][0] for start in starts]
    got = [texts[0].log_probability for texts in wide]
    assert all(one <= other + 1e-9 for one, other in zip(got, best, strict=True))
    assert np.mean(got) > np.mean([text.log_probability for text in greedy]) + 0.05
    assert all(len(texts) == 1 for texts in narrow) and np.mean(np.isclose(got, best)) > 0.8


def test_the_nucleus_has_its_tokens_in_proportion() -> None:
    probabilities = np.array([0.02, 0.4, 0.08, 0.3, 0.2])
    draws = torch.from_numpy((np.arange(9000) + 0.5) / 9000)
    logits = torch.from_numpy(np.log(probabilities)).expand(9000, 5)
    found = np.bincount(draw_from_nucleus(logits, draws, 0.85).numpy(), minlength=5) / 9000
    assert np.allclose(found, [0, 0.4 / 0.9, 0, 0.3 / 0.9, 0.2 / 0.9], atol=2e-4)  # .4 + .3 + .2 is the least with .85
    assert set(draw_from_nucleus(logits, draws, 0.01).tolist()) == {1}
    whole = np.bincount(draw_from_nucleus(logits, draws, 1.0).numpy(), minlength=5) / 9000
    assert np.allclose(whole, probabilities, atol=2e-4)


def test_a_flat_nucleus_is_wider_than_the_short_list() -> None:
    logits = torch.zeros(1, 5000, dtype=torch.float64)
    found = {int(draw_from_nucleus(logits, torch.tensor([draw]), 0.95)[0]) for draw in np.linspace(0, 0.999, 300)}
    assert len(found) == 300
