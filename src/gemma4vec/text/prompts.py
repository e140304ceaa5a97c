"""Prompts: text before a query or document that tells the model what it reads.

Defaults follow EmbeddingGemma's model card (Google, 2025): `task: search result | query: ` for queries and
`title: {title | "none"} | text: ` for documents.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple


class Document(NamedTuple):
    """A text to be found, with the title that its prompt may use."""

    text: str
    title: str | None = None


class Prompted(NamedTuple):
    """A prompt and the text after it, separate so that a readout can leave the prompt out."""

    prompt: str
    text: str


def as_document(text: "str | Document") -> Document:
    """Convert a string to a document without a title."""
    return text if isinstance(text, Document) else Document(text)


@dataclass(frozen=True)
class Prompts:
    """The texts put before a query and before a document.

    `document` may contain `{title}`, which becomes the document's title, or "none" without one. If `document` has no
    `{title}`, the title precedes the text with one space between them, as in BEIR and sentence-transformers.
    """

    query: str = ""
    document: str = ""

    def for_query(self, text: str) -> Prompted:
        """Add the prompt to a query."""
        return Prompted(self.query, text)

    def for_document(self, document: "str | Document") -> Prompted:
        """Add the prompt, and the title if there is one, to a document."""
        text, title = as_document(document)
        if "{title}" in self.document:
            return Prompted(self.document.replace("{title}", title or "none"), text)
        return Prompted(self.document, f"{title} {text}" if title else text)

    def as_dict(self) -> dict[str, str]:
        """The prompts by role, for config files."""
        return asdict(self)


RETRIEVAL = Prompts(query="task: search result | query: ", document="title: {title} | text: ")
CODE_RETRIEVAL = Prompts(query="task: code retrieval | query: ", document="title: {title} | text: ")
NONE = Prompts()
BY_NAME = {"retrieval": RETRIEVAL, "code_retrieval": CODE_RETRIEVAL, "none": NONE}
