"""The tested versions of the packages that affect results; constraints.txt pins all packages."""

from importlib import metadata

TESTED = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "sentence-transformers": "6.2.0",
    "peft": "0.21.2",
    "tokenizers": "0.23.3",
    "numpy": "2.4.6",
    "bm25s": "0.3.16",
}


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
