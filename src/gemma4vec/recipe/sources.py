"""The recipe's words for data: where a stage's rows and plain texts come from, and how sources are mixed.

Each kind of source is a `Part` with keys of its own; `source` says which kind it is.
"""

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from gemma4vec.reading.names import Name
from gemma4vec.recipe.part import Part

DocumentPair = Literal["heading", "sentence", "link", "code"]
DOCUMENT_PAIRS: tuple[DocumentPair, ...] = get_args(DocumentPair)

PromptWords = Literal["retrieval", "code_retrieval", "none"] | dict[Literal["query", "document"], str]

# A source of commit da599b7 had all of these keys, whatever its kind: recipes that it wrote out have them, and ids are
# hashes of them. Nothing is ever added or changed here; a new key has its default in its own class.
FIRST_KEYS: dict[str, object] = {
    "path": None,
    "columns": None,
    "split": "train",
    "subset": None,
    "table": None,
    "language": "en",
    "encoding": "utf-8",
    "negatives": 4,
    "drop": None,
    "max_rows": None,
    "max_bad_share": 0.0,
    "weight": None,
    "prompts": None,
    "pair_with_itself": False,
}


class Columns(Part):
    """Which column of a table holds what; several columns of positives or negatives are one list.

    Without any of this, columns are recognized by their names (docs/guides/data.md lists them).
    """

    query: str | None = Field(None, description="the query")
    pos: str | tuple[str, ...] = Field((), description="the positive, or several")
    neg: str | tuple[str, ...] = Field((), description="the hard negative, or several")
    title: str | None = Field(None, description="title of the positive")
    task: str | None = Field(None, description="the row's task, for `mixture.one_task_batches`")
    group: str | None = Field(None, description="the row's group, for `batch.group_rows`")
    scores: str | tuple[str, ...] = Field(
        (), description="a teacher's scores: one column of objects or lists, or one for each of `pos` and `neg`"
    )
    text: str | None = Field(None, description="plain texts instead of rows")

    @model_validator(mode="after")
    def _rows_or_texts(self) -> "Columns":
        if self.text is not None and (self.query or self.pos or self.neg):
            raise ValueError("text is for plain texts, query, pos and neg are for rows; give one or the other")
        if self.text is None and not (self.query and self.pos):
            raise ValueError("query and pos are needed (or text, for plain texts)")
        return self


class SourceBase(Part):
    """What every kind of source has."""

    source: str = Field(description="the kind of source; decides which other keys there are")
    name: Name = Field(description="what the log, the manifest and `source_weights` call it")
    path: str | None = Field(None, description="the file or folder")
    drop: str | None = Field(
        None, description="list of rows and negatives to leave out, as `data check --drop` writes it"
    )
    repeat: str | None = Field(
        None, description="list of rows that a pass reads several times, as `inspect remedy` writes it"
    )
    max_rows: int | None = Field(None, ge=1, description="read this many rows, from the first; null: all")
    max_bad_share: float = Field(0.0, ge=0, le=1, description="share of bad rows above which the run stops")
    weight: float | None = Field(
        None, ge=0, description="share of the training rows, relative to the other sources; null: its number of rows"
    )
    prompts: PromptWords | None = Field(None, description="this source's own prompts; null: `model.prompts`")
    negatives: int = Field(
        4,
        ge=0,
        description="`pycode`, `documents`: hard negatives mined for each row; other kinds use those of their rows",
    )

    @property
    def plain(self) -> bool:
        """Whether it has plain texts instead of rows."""
        return False

    @property
    def own_positives(self) -> bool:
        """Whether each plain text is trained as its own positive."""
        return False


class FileSource(SourceBase):
    """A source that is read from a path."""

    path: str = Field(description="the file or folder")


class TextsSource(FileSource):
    """A source that may have plain texts."""

    pair_with_itself: bool = Field(
        False, description="each plain text is its own positive (SimCSE, Gao et al. 2021, arXiv:2104.08821)"
    )

    @property
    def own_positives(self) -> bool:
        """Whether each plain text is trained as its own positive."""
        return self.pair_with_itself

    @model_validator(mode="after")
    def _texts_for_pairs(self) -> "TextsSource":
        if self.pair_with_itself and not self.plain:
            raise ValueError("pair_with_itself is for plain texts; this source has rows")
        return self


class TableSource(TextsSource):
    """A source with columns."""

    columns: Columns | None = Field(None, description="which column has what; null: recognized by their names")

    @property
    def plain(self) -> bool:
        """Whether it has plain texts instead of rows."""
        return self.columns is not None and self.columns.text is not None


class JsonlSource(FileSource):
    """Rows as JSON objects, one a line (docs/guides/data.md); .gz and .zst are read too."""

    source: Literal["jsonl"] = "jsonl"


class ParquetSource(TableSource):
    """A Parquet file, or a folder of them."""

    source: Literal["parquet"] = "parquet"
    path: str = Field(description="the file, or a folder of Parquet files")


class CsvSource(TableSource):
    """A CSV file with a header."""

    source: Literal["csv"] = "csv"
    encoding: str = Field("utf-8", description="how the file's text is encoded, such as cp1252")


class TsvSource(TableSource):
    """A file of tab-separated values with a header; quotes mean nothing in it."""

    source: Literal["tsv"] = "tsv"
    encoding: str = Field("utf-8", description="how the file's text is encoded, such as cp1252")


class DatasetsSource(TableSource):
    """A data set of the Hugging Face hub, one saved by `save_to_disk`, or a folder of its files."""

    source: Literal["datasets"] = "datasets"
    path: str = Field(description="a hub id (owner/name, or owner/name@revision) or a folder")
    split: str = Field("train", description="the split")
    subset: str | None = Field(None, description="the configuration of a hub data set")
    encoding: str = Field("utf-8", description="how CSV files in it are encoded, such as cp1252")


class BeirSource(FileSource):
    """A folder in BEIR's layout (Thakur et al. 2021, arXiv:2104.08663): judged pairs become rows."""

    source: Literal["beir"] = "beir"
    path: str = Field(description="the folder with corpus.jsonl, queries.jsonl and qrels/")
    split: str = Field("train", description="which judgments: qrels/SPLIT.tsv")


class BuiltSource(SourceBase):
    """A source whose rows and suites are built from files that hold none, and stored."""

    def built_rows(self, path: str) -> JsonlSource:
        """Return the source of the rows that were built, in the file `path`."""
        shared = set(JsonlSource.model_fields) - {"source", "path", "negatives"}
        return JsonlSource(**self.model_dump(include=shared), path=path)


class PycodeSource(BuiltSource):
    """Pairs of docstring and function from Python code, with mined hard negatives and suites of its own."""

    source: Literal["pycode"] = "pycode"
    path: str | None = Field(None, description="a folder of Python code; null: the installed packages")


class DocumentsSource(BuiltSource):
    """Pairs from a folder of documents and code, without labels, with mined hard negatives and a suite of its own."""

    source: Literal["documents"] = "documents"
    path: str = Field(description="a folder of Markdown, HTML, reStructuredText, text, notebooks, PDF, code")
    queries: str | None = Field(
        None,
        description="your own queries, a TSV file of query and path or path#heading, which are the test; null: "
        "documents are held out for it",
    )
    pairs: tuple[DocumentPair, ...] = Field(
        DOCUMENT_PAIRS,
        min_length=1,
        description="where queries come from: a section's heading, a sentence of it (removed from it), the words of a "
        "link to it, the comment that describes a piece of code",
    )
    sentences: int = Field(2, ge=0, description="most sentences of a section, or of a part of a long one, as queries")


class DebianSource(SourceBase):
    """Names and descriptions of Debian's packages, in many languages."""

    source: Literal["debian"] = "debian"
    path: str | None = Field(None, description="a folder of apt's lists; null: this machine's")
    language: str = Field("en", description="language of the descriptions, such as de")


class TextSource(TextsSource):
    """Plain texts, one a line."""

    source: Literal["text"] = "text"

    @property
    def plain(self) -> bool:
        """Lines are plain texts."""
        return True


class SqliteSource(TableSource):
    """Plain texts of one column of a SQLite table."""

    source: Literal["sqlite"] = "sqlite"
    table: str | None = Field(None, description="the table; null: the only one")

    @property
    def plain(self) -> bool:
        """Its cells are plain texts."""
        return True

    @model_validator(mode="after")
    def _one_column(self) -> "SqliteSource":
        if self.columns is not None and self.columns.text is None:
            raise ValueError("a sqlite source has plain texts; name their column as columns.text")
        return self


class TensorsSource(TextsSource):
    """Tokenized plain texts: a file of `torch.save` with `input_ids` and `attention_mask`, both [rows, tokens]."""

    source: Literal["tensors"] = "tensors"

    @property
    def plain(self) -> bool:
        """Its rows are plain texts, as tokens."""
        return True

    @model_validator(mode="after")
    def _tokens_have_no_words(self) -> "TensorsSource":
        if self.drop is not None or self.repeat is not None:
            key = "drop" if self.drop is not None else "repeat"
            raise ValueError(f"a list for {key} names texts, a tensors source has tokens; leave {key} out")
        return self


KINDS: dict[str, type[SourceBase]] = {
    "jsonl": JsonlSource,
    "parquet": ParquetSource,
    "csv": CsvSource,
    "tsv": TsvSource,
    "datasets": DatasetsSource,
    "beir": BeirSource,
    "pycode": PycodeSource,
    "documents": DocumentsSource,
    "debian": DebianSource,
    "text": TextSource,
    "sqlite": SqliteSource,
    "tensors": TensorsSource,
}


def with_kind(value: object) -> object:
    """Return a source's tree with its kind, by default `jsonl`, and without keys that only other kinds use.

    Raises:
        ValueError: a key of another kind has a value, or the path is missing.
    """
    if not isinstance(value, dict):
        return value
    tree = {"source": "jsonl"} | value
    kind = str(tree["source"])
    part = KINDS.get(kind)
    if part is None:
        return tree
    for key in [key for key in tree if key not in part.model_fields]:
        if key in FIRST_KEYS and tree[key] == FIRST_KEYS[key]:
            del tree[key]  # written out by an earlier release
        elif owners := [name for name, other in KINDS.items() if key in other.model_fields]:
            raise ValueError(f"{key} is for {', '.join(owners)}; a {kind} source has none, leave it out")
    if part.model_fields["path"].is_required() and not tree.get("path"):
        raise ValueError(f"a {kind} source needs a path")
    return tree


Source = Annotated[
    JsonlSource
    | ParquetSource
    | CsvSource
    | TsvSource
    | DatasetsSource
    | BeirSource
    | PycodeSource
    | DocumentsSource
    | DebianSource
    | TextSource
    | SqliteSource
    | TensorsSource,
    Field(discriminator="source"),
    BeforeValidator(with_kind),
]
_ADAPTER: TypeAdapter[Source] = TypeAdapter(Source)


def source_of(**keys: object) -> Source:
    """Return the source with these keys; its kind is `source`, by default `jsonl`.

    Raises:
        ValueError: a key is unknown or its value is wrong (pydantic's `ValidationError`).
    """
    return _ADAPTER.validate_python(keys)


def all_keys(source: Source) -> dict[str, object]:
    """Return a source's settings as hashes need them: with the keys that every source once had."""
    return FIRST_KEYS | source.model_dump(mode="json")


class Mixture(Part):
    """Shares of several sources in the training rows. A source's `weight` sets its share directly.

    Sources without weights and without a temperature are read once an epoch.
    """

    temperature: float | None = Field(
        None, gt=0, description="a source of n rows has a share of n^(1/temperature); infinity would be equal shares"
    )
    one_source_batches: bool = Field(False, description="all rows of a batch come from one source")
    one_task_batches: bool = Field(False, description="all rows of a batch are of one task, their field `task`")


def check_mixture(sources: tuple[Source, ...], mixture: Mixture) -> None:
    """Refuse what cannot be mixed.

    Raises:
        ValueError: two sources of one name, weights for some sources only, weights that sum to zero, weights and a
            temperature.
    """
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"data: two sources are named {twice!r}; give each its own name")
    weighted = [source for source in sources if source.weight is not None]
    if not weighted:
        return
    if mixture.temperature is not None:
        raise ValueError(f"mixture.temperature: source {weighted[0].name!r} has a weight; use one or the other")
    if len(weighted) < len(sources):
        missing = next(source for source in sources if source.weight is None)
        raise ValueError(f"data: source {missing.name!r} has no weight, {weighted[0].name!r} has; give all or none one")
    if not any(source.weight for source in weighted):
        raise ValueError(f"data: the weights of {', '.join(names)} sum to zero; give one of them a weight above 0")
