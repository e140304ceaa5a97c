"""Where a recipe is that a person names: a file, or one that comes with the package."""

import difflib
from pathlib import Path

from gemma4vec.errors import InputError

# The repository's `recipes/`, which an installed package holds a copy of.
SHIPPED = Path(__file__).with_name("shipped")


def find_recipe(name: str | Path) -> Path:
    """The file at `name`, or the shipped recipe of that name, such as `gemma4vec/echo_delta_causal`.

    Raises:
        InputError: there is neither.
    """
    file = Path(name).expanduser()
    if file.exists() or file.suffix in (".yaml", ".yml"):
        return file
    known = shipped_recipes()
    matches = [shipped for shipped in known if str(name) in (shipped, shipped.rsplit("/", 1)[-1])]
    if len(matches) == 1:
        return known[matches[0]]
    close = difflib.get_close_matches(str(name), [*known, *(n.rsplit("/", 1)[-1] for n in known)], n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    raise InputError(f"no recipe {str(name)!r}: neither a file nor one that comes with gemma4vec; {hint}")


def shipped_recipes() -> dict[str, Path]:
    """Name (`folder/file` without its ending) -> file of every recipe that comes with the package."""
    files = sorted(SHIPPED.glob("*/*.yaml"))
    return {f"{file.parent.name}/{file.stem}": file for file in files}
