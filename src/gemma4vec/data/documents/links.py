"""The section and file that each link of a folder leads to."""

import posixpath
import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from gemma4vec.data.documents.restructured_text import LABEL
from gemma4vec.data.documents.section import Section, slug

# What a folder's own page is called, and the endings that a site's address leaves out or changes.
INDEXES = ("index.md", "README.md", "readme.md", "index.rst", "index.html", "index.htm", "_index.md", "index.ipynb")
ENDINGS = (".md", ".rst", ".html", ".htm", ".ipynb", ".txt", ".markdown", ".mdx", ".qmd")
_SITE_ENDING = re.compile(r"\.(?:html?|rst|md)\Z")


class Places:
    """Finds sections by address: a path with or without `#anchor`, as links and query files write it."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self._first: dict[str, int] = {}
        self._anchors: dict[tuple[str, str], int] = {}
        self._labels: dict[str, list[int]] = {}
        self._ids: dict[str, int] = {}
        self._files: dict[str, list[int]] = {}
        for place, section in enumerate(sections):
            self._first.setdefault(section.path, place)
            self._files.setdefault(section.path, []).append(place)
            self._ids.setdefault(section.id, place)
            for anchor in section.anchors:
                self._anchors.setdefault((section.path, anchor), place)
                if section.path.endswith((".rst", ".rest")):
                    self._labels.setdefault(anchor, []).append(place)

    def find(self, target: str, path: str) -> int | None:
        """The place of the section that a link in the file `path` leads to; None if it leads out of the folder."""
        if target.startswith(LABEL):
            found = self._labels.get(target.removeprefix(LABEL), [])
            return found[0] if len(found) == 1 else None
        try:
            parts = urlsplit(target)
        except ValueError:
            return None
        if parts.scheme or parts.netloc:
            return None
        file = self._file(unquote(parts.path), path)
        if file is None:
            return None
        if not parts.fragment:
            return self._first[file]
        return self._anchors.get((file, unquote(parts.fragment)))

    def named(self, answer: str) -> tuple[str, list[int]] | None:
        """The sections that a query file names, and whether it named a "file" or a "section"; None if there is none.

        An answer is a path, `path#anchor` or `path#Heading in words`, or the id of a search hit.
        """
        answer = answer.strip().removeprefix("./")
        if answer in self._files:
            return "file", self._files[answer]
        if answer in self._ids:
            return "section", [self._ids[answer]]
        path, mark, anchor = answer.partition("#")
        file = self._file(path, "")
        if file is None:
            return None
        if not mark or not anchor.strip():
            return "file", self._files[file]
        for name in (anchor, unquote(anchor), anchor.strip().lower(), slug(anchor)):
            place = self._anchors.get((file, name))
            if place is not None:
                return "section", [place]
        return None

    def _file(self, named: str, path: str) -> str | None:
        """The file that an address means: relative to `path`, or to the folder if it begins with a slash."""
        if not named:
            return path if path in self._first else None
        joined = named.lstrip("/") if named.startswith("/") else posixpath.join(posixpath.dirname(path), named)
        whole = posixpath.normpath(joined)
        whole = "" if whole == "." else whole
        stem = _SITE_ENDING.sub("", whole)
        candidates = [
            whole,
            *(f"{stem}{ending}" for ending in ENDINGS),
            *(posixpath.join(whole, index) for index in INDEXES),
        ]
        return next((one for one in candidates if one in self._first), None)
