"""The recipe's words for the terms of a contrast's loss. See docs/guides/objectives.md."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gemma4vec.recipe.part import Part

START = "start"  # as a teacher: the model that the run starts from
LISTWISE_TEMPERATURE = 0.05  # of a teacher's similarities
HARDNESS = 5.0  # EmbeddingGemma's alpha (arXiv:2509.20354, section 2.2), where rows have hard negatives


class Term(Part):
    """What all terms have: a weight, a name, and the prefixes that they are summed over."""

    kind: str
    weight: float = Field(1.0, ge=0, description="factor in the sum of terms; 0: computed and logged, not trained")
    name: str | None = Field(None, min_length=1, description="what the log calls it; null: its kind")
    matryoshka: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="sum over prefixes of these lengths, each at unit length; null: the whole vector alone"
    )
    matryoshka_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None, description="factor of each prefix; null: 1 each"
    )

    source_weights: dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None, description="weights of these sources' rows, in place of `weight`"
    )

    @property
    def label(self) -> str:
        """What the log calls it."""
        return self.name or self.kind

    @property
    def row_by_row(self) -> bool:
        """Whether it is a mean over rows, so that rows may weigh differently."""
        return True

    def weight_in(self, source: str | None) -> float:
        """Its weight for rows of a source; None: for all."""
        own = self.source_weights or {}
        return own.get(source, self.weight) if source is not None else self.weight

    @model_validator(mode="after")
    def _prefixes(self) -> "Term":
        lengths, factors = self.matryoshka, self.matryoshka_weights
        if lengths is not None and (not lengths or len(set(lengths)) < len(lengths)):
            raise ValueError(f"matryoshka: {list(lengths)} needs at least one length, each once")
        if factors is not None and len(factors) != len(lengths or ()):
            raise ValueError(f"matryoshka_weights: {len(factors)} given for {len(lengths or ())} lengths in matryoshka")
        return self


class Nce(Term):
    """InfoNCE as in EmbeddingGemma (arXiv:2509.20354, section 2.2)."""

    kind: Literal["nce"] = "nce"
    temperature: float | None = Field(None, gt=0, description="null: the task's")
    share_hard_negatives: bool | None = Field(None, description="null: the task's")
    hardness: float | None = Field(
        None,
        ge=0,
        description="alpha: a row's own hard negatives weigh exp(alpha * similarity); null, true: 5.0; 0: plain",
    )
    query_query: bool = Field(False, description="other rows' queries are candidates too")
    passage_passage: bool = Field(False, description="other rows' passages are candidates of the positive too")
    symmetric: bool = Field(False, description="half the loss looks for each positive's query among all queries")
    false_negative_margin: float | None = Field(
        None, ge=0, description="candidates more similar than the positive by more than this do not count; null: all do"
    )

    decoupled: bool = Field(
        False, description="leave the positive out of its own denominator (Yeh et al. 2022, arXiv:2110.06848)"
    )

    def shares(self, task: bool) -> bool:
        """Whether other rows' hard negatives are candidates; `task` is the task's `share_hard_negatives`."""
        return task if self.share_hard_negatives is None else self.share_hard_negatives

    @field_validator("hardness", mode="before")
    @classmethod
    def _switched(cls, value: object) -> object:
        return (HARDNESS if value else 0.0) if isinstance(value, bool) else value


class Gor(Term):
    """The spread-out regularizer, on queries plus on positives (Zhang et al. 2017, arXiv:1708.06320)."""

    kind: Literal["gor"] = "gor"
    form: Literal["second_moment", "spread_out"] = Field(
        "second_moment", description="second_moment: EmbeddingGemma's; spread_out: Zhang et al.'s, with the mean"
    )

    @property
    def row_by_row(self) -> bool:
        """Moments of all pairs of the batch."""
        return False


class SelfContrast(Term):
    """Two dropout views of one text find each other (SimCSE, Gao et al. 2021, arXiv:2104.08821)."""

    kind: Literal["self_contrast"] = "self_contrast"
    temperature: float | None = Field(None, gt=0, description="null: the task's")
    texts: Literal["queries", "positives"] = Field("positives", description="whose second view is made")


class Matching(Term):
    """The model's vectors are to be a teacher's (EmbedDistill, arXiv:2301.12005; EmbeddingGemma, section 2.2)."""

    kind: Literal["matching"] = "matching"
    teacher: str | None = Field(
        None,
        description="a model: hub id, folder, run folder, bundled:all-minilm-l6-v2, or `start`: the model of "
        "`model.start`, before this training",
    )
    vectors: str | None = Field(
        None,
        description="instead of a model, a file: .jsonl or .parquet with text and vector, or .npy with a file of texts",
    )
    form: Literal["direct", "projection", "relational", "listwise"] = Field(
        "direct",
        description="projection: through a learned matrix; relational: similarities, whatever the dimensions; "
        "listwise: each query's distribution over all candidates of the batch",
    )
    distance: Literal["squared", "l2", "cosine"] = Field(
        "squared", description="how `direct` and `projection` compare two vectors"
    )
    texts: tuple[Literal["queries", "positives", "negatives"], ...] = Field(
        ("queries", "positives", "negatives"), description="whose vectors are compared with the teacher's"
    )
    projection_learning_rate: float = Field(1e-3, gt=0, description="on the same schedule as optimizer.learning_rate")
    teacher_temperature: float | None = Field(
        None,
        gt=0,
        description=f"listwise: temperature of the teacher's similarities, null: {LISTWISE_TEMPERATURE}; the model's "
        "is the task's",
    )

    @property
    def row_by_row(self) -> bool:
        """Relations are of all pairs of the batch."""
        return self.form != "relational"

    @model_validator(mode="after")
    def _one_teacher(self) -> "Matching":
        if (self.teacher is None) == (self.vectors is None):
            raise ValueError("matching needs a teacher: a model as teacher, or a file as vectors, one of the two")
        if not self.texts or len(set(self.texts)) < len(self.texts):
            raise ValueError("texts: name queries, positives or negatives, each once")
        if self.matryoshka is not None and self.form == "projection":
            raise ValueError("matryoshka: a projection leads from whole vectors; use form: direct or relational")
        if self.form == "listwise" and not {"queries", "positives"} <= set(self.texts):
            raise ValueError("form: listwise ranks positives for queries; name both in texts")
        if self.form != "listwise" and self.teacher_temperature is not None:
            raise ValueError(f"teacher_temperature belongs to form: listwise; this one is {self.form}")
        return self


class Kl(Term):
    """A row's candidates are to be as likely as a teacher's scores say (Lin et al. 2020, arXiv:2010.11386)."""

    kind: Literal["kl"] = "kl"
    temperature: float | None = Field(
        None, gt=0, description="temperature of the model's similarities; null: the task's"
    )
    teacher_temperature: float = Field(1.0, gt=0, description="temperature of the teacher's scores")


class MarginMse(Term):
    """The margins between positive and hard negatives are to be a teacher's (Hofstätter et al., arXiv:2010.02666)."""

    kind: Literal["margin_mse"] = "margin_mse"
    teacher_scale: float = Field(
        1.0,
        gt=0,
        description="factor on the teacher's scores: margins of similarities are at most 2, a reranker's may be 20",
    )


class Triplet(Term):
    """A row's positive is nearer than its own hard negatives, by a margin (Sentence-BERT, arXiv:1908.10084)."""

    kind: Literal["triplet"] = "triplet"
    margin: float = Field(0.2, gt=0, le=2, description="by how much nearer, in units of the distance")
    distance: Literal["cosine", "l2"] = Field("cosine", description="1 - cosine, or Euclidean")


class Reconstruct(Term):
    """The frozen base writes a text from its vector (arXiv:2509.03020), through soft tokens as in arXiv:2310.06816."""

    kind: Literal["reconstruct"] = "reconstruct"
    weight: float = Field(0.1, ge=0, description="factor in the sum of terms; 0: computed and logged, not trained")
    prefix_tokens: int = Field(4, ge=1, le=256, description="number of soft tokens that a vector becomes")
    texts: Literal["queries", "documents"] = Field("queries", description="which texts are written")
    text_tokens: int = Field(32, ge=4, description="write this many of a text's first tokens at most")
    prefix_learning_rate: float = Field(1e-3, gt=0, description="of the layers that make soft tokens, on the schedule")

    @property
    def row_by_row(self) -> bool:
        """A mean over the tokens of all texts."""
        return False

    @model_validator(mode="after")
    def _whole_vectors(self) -> "Reconstruct":
        if self.matryoshka is not None:
            raise ValueError("matryoshka: soft tokens are made of whole vectors; leave it out")
        return self


class LearnedTemperature(Part):
    """A temperature that starts at `temperature` and is trained between bounds."""

    minimum: float = Field(0.005, gt=0, description="lower bound")
    maximum: float = Field(0.5, gt=0, description="upper bound")
    learning_rate: float = Field(0.01, gt=0, description="on the same schedule as optimizer.learning_rate")


OnOwnNegatives = Kl | MarginMse | Triplet
AnyTerm = Annotated[
    Nce | Gor | SelfContrast | Matching | Kl | MarginMse | Triplet | Reconstruct, Field(discriminator="kind")
]
