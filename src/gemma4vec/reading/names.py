"""Names that become folders and files: one rule and one length, so that none leads out of its folder."""

from typing import Annotated

from pydantic import AfterValidator

from gemma4vec.errors import InputError

MOST_CHARACTERS = 100
MOST_BYTES = 200  # file systems allow 255, and `1-NAME` and `NAME.jsonl.gz` are names too
_FORBIDDEN = frozenset("/\\")
RULE = (
    f"at most {MOST_CHARACTERS} printable characters, no slash or backslash, the first a letter, a digit or '_', "
    "the last no space and no '.'"
)


def is_name(name: str) -> bool:
    """Whether a name can be that of a folder or file."""
    return (
        0 < len(name) <= MOST_CHARACTERS
        and (name[0].isalnum() or name[0] == "_")
        and name[-1] not in " ."
        and all(one.isprintable() and one not in _FORBIDDEN for one in name)
        and len(name.encode("utf-8", errors="surrogatepass")) <= MOST_BYTES
    )


def _check(name: str) -> str:
    if not is_name(name):
        shown = name if len(name) <= 60 else f"{name[:57]}..."
        raise ValueError(f"the name {shown!r} cannot name a folder: {RULE}")
    return name


# The type of a name in a recipe or a plan.
Name = Annotated[str, AfterValidator(_check)]


def check_name(name: str, where: str) -> str:
    """Return `name`; `where` says in the error what has that name.

    Raises:
        InputError: it cannot be the name of a folder or file.
    """
    try:
        return _check(name)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def as_name(text: str) -> str:
    """The nearest name to a file's own: what a name cannot hold becomes `-`."""
    plain = "".join(one if one.isprintable() and one not in _FORBIDDEN else "-" for one in text)
    plain = plain.lstrip(" .-").encode("utf-8", errors="replace")[:MOST_CHARACTERS].decode("utf-8", errors="ignore")
    plain = plain.rstrip(" .")
    return plain if is_name(plain) else f"_{plain}" if is_name(f"_{plain}") else "unnamed"
