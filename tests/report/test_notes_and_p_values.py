"""A page's words on a comparison: p-values with digits enough to differ, each warning once."""

from dataclasses import dataclass
from typing import Any

import pytest

from gemma4vec.report.content.comparison_notes import list_comparison_notes
from gemma4vec.report.content.p_value import format_p_value


@pytest.mark.parametrize(
    ("p", "written"), [(1.0, "= 1"), (0.0123, "= 0.012"), (0.001, "= 0.001"), (0.00099, "< 0.001"), (0.0, "< 0.001")]
)
def test_a_p_value_is_no_finer_than_its_test(p: float, written: str) -> None:
    assert format_p_value(p) == written


@dataclass
class Warned:
    """As much of a comparison as the notes read."""

    said: list[str]

    def warnings(self) -> list[str]:
        return self.said


def test_a_warning_of_several_comparisons_comes_once() -> None:
    comparisons: list[tuple[str, Any]] = [
        ("plain", Warned(["one seed each", "queries are touched"])),
        ("causal", Warned(["one seed each"])),
        ("bm25", Warned([])),
    ]
    assert list_comparison_notes(comparisons, "mean") == [
        "mean minus plain and causal: one seed each.",
        "mean minus plain: queries are touched.",
    ]
