"""How a page writes a p-value. It imports nothing, so that a page without statistics loads none."""


def format_p_value(p: float) -> str:
    """Format a p-value: `= 0.012`, `< 0.001`. The test's 10,000 flips do not resolve smaller values."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
