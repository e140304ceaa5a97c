"""A number with its noun."""


def counted(number: int, one: str, several: str = "") -> str:
    """1 query, 2,000 queries: `several` is the plural where it is not `one` and an s."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
