"""Soft tokens: shape, size, and that they depend on seed and vector."""

import pytest
import torch

from gemma4vec.model.inverter.prefix import Prefix


def test_soft_tokens_have_the_size_of_embeddings_whatever_the_weights() -> None:
    prefix = Prefix(6, 3, 16, hidden=None, size=2.5, seed=1).double()
    vectors = torch.nn.functional.normalize(torch.randn(5, 6, dtype=torch.float64), dim=1)
    found = prefix(vectors)
    assert found.shape == (5, 3, 16) and prefix.hidden == 16 and prefix.dimension == 6
    torch.testing.assert_close(found.square().mean(dim=2).sqrt(), torch.full((5, 3), 2.5, dtype=torch.float64))
    with torch.no_grad():
        prefix.leave.weight *= 7
        prefix.leave.bias *= 7
    torch.testing.assert_close(prefix(vectors), found, rtol=1e-6, atol=1e-6)
    scaled = vectors * 6**0.5
    hidden = scaled @ prefix.enter.weight.T + prefix.enter.bias
    plain = torch.special.ndtr(hidden) * hidden @ prefix.leave.weight.T + prefix.leave.bias
    expected = plain.view(5, 3, 16)
    expected = 2.5 * expected / expected.square().mean(dim=2, keepdim=True).sqrt()
    torch.testing.assert_close(prefix(vectors), expected, rtol=1e-6, atol=1e-6)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = (Prefix(4, 2, 8, hidden=5, size=1.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.leave.weight, same.leave.weight) and not torch.equal(one.leave.weight, other.leave.weight)
    assert one.state_dict()["size"] == pytest.approx(1.0) and one.hidden == 5
