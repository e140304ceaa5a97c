"""Vectors that search by inner product may hold."""

import numpy as np

from gemma4vec.retrieval.unit_rows import are_unit_lengths, find_unit_rows


def test_unit_rows_are_found_and_others_are_not() -> None:
    vectors_MD = np.array([[0.6, 0.8], [0.6, 0.805], [0.6, 0.9], [0, 0], [np.nan, 1], [np.inf, 0]], np.float32)
    assert find_unit_rows(vectors_MD).tolist() == [True, True, False, False, False, False]
    assert find_unit_rows(np.zeros((0, 3), np.float32)).shape == (0,)


def test_what_16_bits_round_is_still_of_unit_length() -> None:
    random = np.random.default_rng(0)
    vectors_MD = random.standard_normal((50, 640))
    vectors_MD /= np.linalg.norm(vectors_MD, axis=1, keepdims=True)
    bits = vectors_MD.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)  # bf16, rounded to zero
    assert find_unit_rows(bits.view(np.float32)).all()
    assert are_unit_lengths(np.array([1.0, 0.98, np.nan])).tolist() == [True, False, False]
