"""Where a stage's rows and plain texts come from, and in which shares."""

from typing import Literal

from pydantic import Field, model_validator

from gemma4vec.recipe.part import Part

PromptWords = Literal["retrieval", "code_retrieval", "none"] | dict[Literal["query", "document"], str]
# Sources whose texts belong to no row, and tables, which may have rows or texts.
PLAIN = ("text", "sqlite", "tensors")
TABLES = ("parquet", "csv", "tsv", "datasets")

# Settings that mean something to some kinds of sources only.
BELONGS = {
    "split": ("datasets", "beir"),
    "subset": ("datasets",),
    "table": ("sqlite",),
    "language": ("debian",),
    "encoding": ("csv", "tsv", "datasets"),
}


class Columns(Part):
    """Which column of a table holds what; several columns of positives or negatives are one list.

    Without any of this, columns are recognised by their names (docs/guides/data.md lists them).
    """

    query: str | None = None
    pos: str | tuple[str, ...] = ()
    neg: str | tuple[str, ...] = ()
    title: str | None = Field(None, description="title of the positive")
    task: str | None = None
    group: str | None = None
    scores: str | tuple[str, ...] = Field(
        (), description="a teacher's scores: a column of objects or lists, or a column for each of pos and neg"
    )
    text: str | None = Field(None, description="plain texts instead of rows")

    @model_validator(mode="after")
    def _rows_or_texts(self) -> "Columns":
        if self.text is not None and (self.query or self.pos or self.neg):
            raise ValueError("text is for plain texts, query, pos and neg are for rows; give one or the other")
        if self.text is None and not (self.query and self.pos):
            raise ValueError("query and pos are needed (or text, for plain texts)")
        return self


class Source(Part):
    """Rows, or plain texts, to train on."""

    name: str
    source: Literal[
        "jsonl", "parquet", "csv", "tsv", "datasets", "beir", "pycode", "debian", "text", "sqlite", "tensors"
    ] = "jsonl"
    path: str | None = Field(
        None,
        description="the file or folder; datasets: a hub id too; pycode: a folder of code, null for the installed one; "
        "debian: a folder of apt's lists, null for this machine's",
    )
    columns: Columns | None = Field(None, description="parquet, csv, tsv, datasets, sqlite: which column holds what")
    split: str = Field("train", description="datasets: the split; beir: the judgments, qrels/SPLIT.tsv")
    subset: str | None = Field(None, description="datasets: the configuration of a hub data set")
    table: str | None = Field(None, description="sqlite: the table; null: the only one")
    language: str = Field("en", description="debian: language of the descriptions, such as de")
    encoding: str = Field("utf-8", description="csv, tsv: how the file's text is encoded, such as cp1252")
    negatives: int = Field(4, ge=0, description="pycode: hard negatives that are mined for each row")
    drop: str | None = Field(
        None, description="list of rows and negatives to leave out, as data check --drop writes it"
    )
    max_rows: int | None = Field(None, ge=1, description="the first so many rows")
    max_bad_share: float = Field(0.0, ge=0, le=1, description="share of bad rows above which the run stops")
    weight: float | None = Field(
        None, ge=0, description="share of the training rows, relative to the other sources'; null: as many as it has"
    )
    prompts: PromptWords | None = Field(None, description="this source's own prompts; null: model.prompts")
    pair_with_itself: bool = Field(
        False, description="each plain text is its own positive (SimCSE, Gao et al. 2021, arXiv:2104.08821)"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Source":
        for name, kinds in BELONGS.items():
            if self.source not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for {', '.join(kinds)}; a {self.source} source has none, leave it out")
        if self.source not in ("pycode", "debian") and not self.path:
            raise ValueError(f"a {self.source} source needs a path")
        if self.columns is not None and self.source not in (*TABLES, "sqlite"):
            raise ValueError(f"a {self.source} source has no columns")
        if self.source == "sqlite" and self.columns is not None and self.columns.text is None:
            raise ValueError("a sqlite source has plain texts; name their column as columns.text")
        if self.drop is not None and self.source == "tensors":
            raise ValueError("a list of drops names texts, a tensors source has tokens; leave drop out")
        if self.pair_with_itself and not self.plain:
            raise ValueError("pair_with_itself is for plain texts; this source has rows")
        return self

    @property
    def plain(self) -> bool:
        """Whether it gives plain texts, not rows."""
        return self.source in PLAIN or (self.columns is not None and self.columns.text is not None)


class Mixture(Part):
    """In which shares the rows of several sources are trained on (their `weight` says it outright).

    Sources without weights and without a temperature are read through once an epoch.
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
