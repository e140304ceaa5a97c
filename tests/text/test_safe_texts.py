"""Texts of strangers, made safe to show and to encode."""

import pytest

from gemma4vec.text.encodable import encodable
from gemma4vec.text.sanitize import sanitize


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\r\ntwo\n\tthree", "one\ntwo\n\tthree"),  # line ends and tabs stay
        ("\x1b[31mred\x07", "\ufffd[31mred\ufffd"),  # colors, the bell
        ("\x9b1A", "\ufffd1A"),  # C1 moves the cursor, too
        ("if a \u202e not b", "if a \ufffd not b"),  # shown in another order than it runs
        ("\ud800", "\ufffd"),
        ("дом 東京 é", "дом 東京 é"),
    ],
)
def test_what_a_terminal_would_obey_is_replaced(text: str, shown: str) -> None:
    assert sanitize(text) == shown


def test_half_a_character_becomes_a_question_mark_and_all_else_stays() -> None:
    assert encodable("read \ud800 дом") == "read ? дом"
    whole = "дом 東京 \x00"
    assert encodable(whole) is whole
