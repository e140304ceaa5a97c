"""Prompts: what is put before (or around) a text so that the model knows what it reads.

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
    """A prompt and the text behind it, kept apart so that a readout can leave the prompt out."""

    prompt: str
    text: str


def as_document(text: "str | Document") -> Document:
    """A plain string is a document without a title."""
    return text if isinstance(text, Document) else Document(text)


@dataclass(frozen=True)
class Prompts:
    """The texts put before a query and before a document.

    `document` may contain `{title}`, which becomes the document's title, or "none" where it has none. Where `document`
    has no `{title}`, a title is put before the text and separated by one space, as BEIR and sentence-transformers do.
    """

    query: str = ""
    document: str = ""

    def for_query(self, text: str) -> Prompted:
        """The query as the model reads it."""
        return Prompted(self.query, text)

    def for_document(self, document: "str | Document") -> Prompted:
        """The document as the model reads it."""
        text, title = as_document(document)
        if "{title}" in self.document:
            return Prompted(self.document.replace("{title}", title or "none"), text)
        return Prompted(self.document, f"{title} {text}" if title else text)

    def as_dict(self) -> dict[str, str]:
        """For config files."""
        return asdict(self)


RETRIEVAL = Prompts(query="task: search result | query: ", document="title: {title} | text: ")
CODE_RETRIEVAL = Prompts(query="task: code retrieval | query: ", document="title: {title} | text: ")
NONE = Prompts()
BY_NAME = {"retrieval": RETRIEVAL, "code_retrieval": CODE_RETRIEVAL, "none": NONE}
