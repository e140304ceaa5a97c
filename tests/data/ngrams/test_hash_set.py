"""HashSet agrees with Python's set."""

from hypothesis import given
from hypothesis import strategies as st

from gemma4vec.data.ngrams.hash_set import HashSet


@given(st.lists(st.one_of(st.integers(1, 50), st.integers(1, 2**64 - 1))))
def test_what_is_new_is_what_a_set_does_not_have(keys: list[int]) -> None:
    compact, plain = HashSet(), set[int]()
    for key in keys:
        assert compact.add(key) == (key not in plain)
        plain.add(key)
    assert len(compact) == len(plain)


def test_it_grows_and_takes_equal_low_bits() -> None:
    compact = HashSet()
    keys = [number << 20 for number in range(1, 1_000)] + list(range(1, 2_000))
    assert all(compact.add(key) for key in keys) and not any(compact.add(key) for key in keys)
    assert len(compact) == 2_998
    assert compact.add(0) is False  # 0 is stored as 1
