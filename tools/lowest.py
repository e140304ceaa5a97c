"""Print the oldest versions that pyproject.toml allows, as constraints for pip: `make lowest` installs and tests them.

    python tools/lowest.py [--torch VERSION] [EXTRA ...]

What builds the package, each dependency, and each one of the named extras is pinned to its lower bound. What
they depend on in turn is left to pip.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest_pins(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (canonical name, oldest allowed version) of each requirement.

    Raises:
        ValueError: a requirement has no lower bound, so nobody can say what it was tested with.
    """
    for text in texts:
        requirement = Requirement(text)
        bounds = [bound.version for bound in requirement.specifier if bound.operator in (">=", "==", "~=")]
        if len(bounds) != 1:
            raise ValueError(f"pyproject.toml: {text!r} needs one lower bound (>=, == or ~=)")
        yield canonicalize_name(requirement.name), bounds[0]


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the oldest versions that pyproject.toml allows.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="also the packages of these extras")
    parser.add_argument("--torch", metavar="VERSION", help="this torch instead of the oldest one")
    options = parser.parse_args()
    tables = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    project = tables["project"]
    known = project["optional-dependencies"]
    unknown = sorted(set(options.extras) - set(known))
    if unknown:
        print(f"error: pyproject.toml has no extra {unknown[0]!r}; it has {', '.join(known)}", file=sys.stderr)
        return 2
    texts = [*tables["build-system"]["requires"], *project["dependencies"]]
    texts += [text for extra in options.extras for text in known[extra]]
    pins = dict(lowest_pins(texts))
    if options.torch:
        pins["torch"] = options.torch
    print("\n".join(f"{name}=={version}" for name, version in sorted(pins.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
