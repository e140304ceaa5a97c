"""The encoder gives unit vectors in the order of the texts, however they were laid out."""

from pathlib import Path

import pytest
import torch
from tiny_model import write_tiny

from gemma4vec.model.backbone import last_token_layer as last_layer
from gemma4vec.model.backbone.last_token_layer import enable_last_token_only, find_last_tokens
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, pack, pad
from gemma4vec.recipe.schema import Head, Model

TEXTS = [Tokens(list(range(2, 2 + length))) for length in (3, 17, 5, 30, 1, 9, 12)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), layers=2)


def made(base: Path, dtype: torch.dtype = torch.float32, widths: tuple[int, ...] = ()) -> EmbeddingModel:
    head = Head(widths=widths) if widths else None
    return build(Model(base=str(base), lora=None, head=head), base, dtype=dtype)


@pytest.mark.parametrize("widths", [(), (5,), (9, 5)])
def test_vectors_come_in_the_order_of_the_texts(base: Path, widths: tuple[int, ...]) -> None:
    encoder = made(base, widths=widths).encoder.eval()
    with torch.no_grad():
        found = encoder(pack(TEXTS, 32, 64, 0))
        alone = torch.cat([encoder(pad([text], 64, 0)) for text in TEXTS])
        # Laid out in another order, with the numbers that say so.
        reverse = encoder(pack(TEXTS, 32, 64, 0)[::-1])
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(reverse, alone, rtol=0, atol=1e-5)
    assert found.shape == (7, widths[-1] if widths else 32) and encoder.dimension == found.shape[1]
    torch.testing.assert_close(found.norm(dim=1), torch.ones(7))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
@pytest.mark.parametrize("widths", [(), (5,), (9, 5)])
def test_vectors_are_fp32_at_least(
    base: Path, dtype: torch.dtype, expected: torch.dtype, widths: tuple[int, ...]
) -> None:
    vectors = made(base, dtype, widths).encoder(pad(TEXTS, 64, 0))
    assert vectors.dtype == expected and torch.isfinite(vectors).all()


def test_last_tokens_are_looked_up_before_a_layout_moves(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the numbers would be waited for."""
    built = build(Model(base=str(base), lora=None, attention="causal", readout="last_token"), base, dtype=torch.float32)
    encoder, seen = built.encoder.eval(), []
    monkeypatch.setattr(encoder.backbone, "supports_last_token_only", lambda layout: True)
    monkeypatch.setattr(last_layer, "find_last_tokens", lambda layout: seen.append("ends") or find_last_tokens(layout))
    monkeypatch.setattr(PackedBatch, "to", lambda layout, device: seen.append("to") or layout)
    enable_last_token_only(encoder.backbone.layers[-1])
    layouts = pack(TEXTS, 32, 512, 0)
    with torch.no_grad():
        found = encoder(layouts)
        assert len(layouts) == 1 and seen == ["ends", "to", "to"]
        monkeypatch.setattr(encoder.backbone, "supports_last_token_only", lambda layout: False)
        torch.testing.assert_close(found, encoder(layouts), rtol=0, atol=1e-5)


def test_trained_values_go_in_by_name_or_not_at_all(base: Path) -> None:
    from gemma4vec.errors import InputError

    built = made(base, widths=(5,))
    values = {name: torch.full_like(p, 0.5) for name, p in built.trainable().items()}
    built.load_trained(values)
    assert all((p == 0.5).all() for p in built.trainable().values())
    missing = dict(values)
    missing.pop("head.0.weight")
    with pytest.raises(InputError, match=r"belong to another model: 1 names differ, first 'head\.0\.weight'"):
        built.load_trained(missing)
