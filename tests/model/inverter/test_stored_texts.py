"""The training texts that are stored with a decoder come back whatever characters they have; damage is one line."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from gemma4vec.errors import InputError
from gemma4vec.model.inverter.decoder_folder import store_texts, stored_texts

TEXTS = ["plain", "a\u2028b\u2029c", "d\x85e", "f\x0cg\x1ch", "i\r\nj", "", " ", "\ud83d", "日本"]
FACTS = cast(Any, SimpleNamespace(dimension=3))


def test_every_text_comes_back(tmp_path: Path) -> None:
    vectors_Nd = np.eye(3)[np.arange(len(TEXTS)) % 3]
    store_texts(tmp_path, TEXTS, vectors_Nd)
    texts, found_Nd = stored_texts(tmp_path, FACTS)
    assert texts == TEXTS and np.array_equal(found_Nd, vectors_Nd)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("texts.jsonl", b"[" * 100_000),
        ("texts.jsonl", b'"one"\n'),
        ("texts.jsonl", b"\xff"),
        ("vectors.npy", b"\x93NUMPY\x01\x00\x04\x00((\n "),
    ],
)
def test_damage_is_one_line(tmp_path: Path, file: str, damage: bytes) -> None:
    store_texts(tmp_path, TEXTS, np.ones((len(TEXTS), 3)))
    (tmp_path / file).write_bytes(damage)
    with pytest.raises(
        InputError, match=r"the texts of the decoder in .* are damaged \(.*\); delete texts\.jsonl"
    ) as caught:
        stored_texts(tmp_path, FACTS)
    assert "\n" not in str(caught.value)
