"""The grids: bit for bit those of GGUF; per channel those of an oracle; each maps its own values to itself."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize
from gguf.quants import quantize as gguf_quantize

from gemma4vec.errors import InputError
from gemma4vec.model.adapters.grids import INT4, INT8, Q4_0, Q8_0, Grid, dequantize, quantize, round_to_grid
from gemma4vec.model.adapters.schemes import SCHEMES, check_scheme, grids_of

KINDS = {"q8_0": GGMLQuantizationType.Q8_0, "q4_0": GGMLQuantizationType.Q4_0}


def odd_values() -> np.ndarray:
    """Rows of 64: values of all sizes, zeros of both signs, ties, one value alone, f16 denormals, large values."""
    random = np.random.default_rng(0)
    rows = [random.normal(0, scale, (40, 64)) for scale in (1e-6, 1e-3, 0.02, 1.0, 1e3)]
    rows.append(np.round(random.normal(0, 4, (40, 64))))  # halves and ties of magnitude
    rows.append(random.choice([-1.0, 1.0, 0.0, -0.0, 0.5, -0.5], (40, 64)))
    rows.append(np.where(random.random((20, 64)) < 0.03, random.normal(0, 1, (20, 64)), 0.0))
    rows.append(np.stack([np.zeros(64), np.full(64, -0.0), np.full(64, 3.0), np.full(64, -3.0), np.full(64, 1e5)]))
    rows.append(random.normal(0, 1, (5, 64)) * 2.0**-24 * 8)  # scales that are denormal in f16
    return np.concatenate(rows).astype(np.float32)


@pytest.mark.parametrize("grid", [Q8_0, Q4_0], ids=lambda grid: grid.name)
def test_blocks_equal_gguf_bit_for_bit(grid: Grid) -> None:
    values = odd_values()
    kind = KINDS[grid.name]
    expected = gguf_dequantize(gguf_quantize(values, kind), kind)
    found = round_to_grid(torch.from_numpy(values), grid).numpy()
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))
    assert np.array_equal(dequantize(quantize(torch.from_numpy(values), grid)).numpy(), expected)


@pytest.mark.parametrize("grid", [Q8_0, Q4_0], ids=lambda grid: grid.name)
@pytest.mark.filterwarnings("ignore:.*(overflow|invalid|divide).*:RuntimeWarning")
def test_denormal_and_huge_values_equal_gguf(grid: Grid) -> None:
    """Denormal in fp32: all zeros. Over f16's range: infinite or NaN, which a command refuses before."""
    values = np.concatenate([np.full((2, 32), 1e-40), np.linspace(-3e38, 3e38, 64).reshape(2, 32)]).astype(np.float32)
    expected = gguf_dequantize(gguf_quantize(values, KINDS[grid.name]), KINDS[grid.name])
    found = round_to_grid(torch.from_numpy(values), grid).numpy()
    assert np.array_equal(found, expected, equal_nan=True)
    assert not found[:2].any() and not np.isfinite(found[2:]).all()


@pytest.mark.parametrize("grid", [INT8, INT4], ids=lambda grid: grid.name)
def test_channels_equal_an_oracle_in_exact_arithmetic(grid: Grid) -> None:
    values = odd_values()
    expected = np.zeros_like(values)
    for row, out in zip(values, expected, strict=True):
        mantissa, exponent = np.frexp(np.float32(np.abs(row).max() / np.float32(grid.largest)))
        scale = np.ldexp(np.round(np.float64(mantissa) * 2**11), int(exponent) - 11)  # 11 significant bits
        if scale:
            quotients = (row / np.float32(scale)).astype(np.float64)
            out[:] = np.clip(np.rint(quotients), -grid.largest, grid.largest) * scale
    found = round_to_grid(torch.from_numpy(values), grid).numpy()
    assert np.array_equal(found, expected)
    codes, scales = quantize(torch.from_numpy(values), grid)
    assert codes.abs().amax() == grid.largest and scales.shape == (len(values), 1)


@pytest.mark.parametrize("grid", [Q8_0, Q4_0, INT8, INT4], ids=lambda grid: grid.name)
def test_values_on_a_grid_stay(grid: Grid) -> None:
    once = round_to_grid(torch.from_numpy(odd_values()), grid)
    assert torch.equal(round_to_grid(once, grid), once)
    assert len(once.unique()) > 100


def test_it_writes_in_place_and_in_pieces_into_another_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.from_numpy(odd_values())
    whole = round_to_grid(values, Q4_0)
    monkeypatch.setattr("gemma4vec.model.adapters.grids._PIECE", 200)
    wide = torch.zeros(len(values), 70, dtype=torch.bfloat16)
    round_to_grid(values.double(), Q4_0, wide[:, :64])
    assert torch.equal(wide[:, :64], whole.bfloat16()) and not wide[:, 64:].any()
    copy = values.clone()
    assert round_to_grid(copy, Q4_0, copy) is copy and torch.equal(copy, whole)


def test_what_no_grid_has_is_refused() -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        quantize(torch.tensor([[float("nan")] * 32]), Q8_0)
    with pytest.raises(InputError, match="blocks of 32"):
        quantize(torch.ones(2, 48), Q8_0)


def test_schemes_name_the_matrix_that_they_cannot_have() -> None:
    shapes = {"embed_tokens.weight": (400, 64), "layers.1.mlp.down_proj.weight": (64, 48), "norm.weight": (64,)}
    with pytest.raises(InputError, match=r"q4_0: the rows of layers\.1\.mlp\.down_proj\.weight have 48 values"):
        grids_of("q4_0", shapes)
    found = grids_of("mixed", shapes | {"layers.1.self_attn.q_proj.weight": (64, 64), "head.0": (9, 64)})
    assert {name: grid.name for name, grid in found.items()} == {
        "embed_tokens.weight": "int4",
        "layers.1.mlp.down_proj.weight": "int4",
        "layers.1.self_attn.q_proj.weight": "int8",
        "head.0": "int4",
    }
    with pytest.raises(InputError, match="3 dimensions"):
        grids_of("q8_0", {"experts": (2, 32, 32)})
    with pytest.raises(InputError, match="there is no scheme 'q5'; use q8_0, q4_0, mixed"):
        check_scheme("q5")
    assert "head.0" not in grids_of("q8_0", {"head.0": (9, 64)}) and set(SCHEMES) == {"q8_0", "q4_0", "mixed"}
