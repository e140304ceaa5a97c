"""Make untrusted text safe to show in a terminal or on a page."""

# C0, DEL and C1 move the cursor, ring the bell and change colors. Bidi controls display code in another order than it
# runs ("Trojan Source", Boucher & Anderson 2021). Lone surrogates cannot be encoded.
_HARMFUL = [
    *(code for code in range(0x20) if chr(code) not in "\n\t"),
    *range(0x7F, 0xA0),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    0x200E,
    0x200F,
    0x2028,
    0x2029,
    0xFEFF,
    *range(0xD800, 0xE000),
]
_REPLACED = dict.fromkeys(_HARMFUL, "\N{REPLACEMENT CHARACTER}")


def sanitize(text: str) -> str:
    """Replace control characters, bidi controls and lone surrogates by U+FFFD, and line ends by \\n."""
    return text.replace("\r\n", "\n").translate(_REPLACED)
