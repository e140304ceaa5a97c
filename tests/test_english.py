"""Words of a private English that this project had, and that a native reader stumbles over."""

import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "gemma4vec"
# Each has a plain word: again, number of, distinguished, if known, next to, is stored, and the noun itself.
AVOIDED = [
    "anew",
    "so many",
    "told apart",
    "as far as it",
    "thereof",
    "not neither",
    "at fault",
    "stands twice",
    "is no index here",
]


def test_worst_words_stay_away() -> None:
    pattern = re.compile(r"\b(" + "|".join(AVOIDED) + r")\b", re.IGNORECASE)
    found = [
        f"{path.relative_to(PACKAGE)}:{number}: {match.group(0)}"
        for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.html"), *PACKAGE.rglob("README.md")])
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in pattern.finditer(line)
    ]
    assert found == []


def test_identifiers_are_spelled_as_upstream() -> None:
    """`tokenizer`, `optimizer`, `normalize`: as in PyTorch and transformers."""
    pattern = re.compile(r"\b\w*(tokenis|optimis|normalis|summaris|initialis|serialis|quantis)\w*", re.IGNORECASE)
    # Names that files on disk have had from the beginning.
    allowed = {"recipe/renamed.py", "training/engine/checkpoint.py", "data/quality/check.py"}
    found = [
        f"{path.relative_to(PACKAGE)}:{number}: {match.group(0)}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).as_posix() not in allowed
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in pattern.finditer(line)
    ]
    assert found == []
