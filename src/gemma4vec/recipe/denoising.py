"""The recipe's words for denoising: which spans of a text are hidden, and the decoder that restores them."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gemma4vec.recipe.lora import Lora
from gemma4vec.recipe.part import Part


class Denoiser(Part):
    """One way to corrupt a text: random spans, or everything after a prefix."""

    span: float | None = Field(None, ge=1, description="mean length of a hidden span in tokens")
    share: float | None = Field(None, gt=0, lt=1, description="share of a text's tokens that is hidden")
    prefix: float | None = Field(
        None, gt=0, lt=1, description="share of a text that stays, in place of `span` and `share`: prefix LM"
    )
    weight: float = Field(1.0, gt=0, description="share of the texts with this denoiser, relative to the others")

    @model_validator(mode="after")
    def _one_of_two(self) -> "Denoiser":
        spans = (self.span is not None, self.share is not None)
        if self.prefix is not None and any(spans):
            raise ValueError("prefix hides one span, the rest of the text; leave span and share out, or prefix")
        if self.prefix is None and not all(spans):
            raise ValueError("a denoiser has span and share, or prefix")
        return self

    @property
    def label(self) -> str:
        """Its name in the log: `3 x 15%`, or `prefix 25%`."""
        if self.prefix is not None:
            return f"prefix {self.prefix:.0%}"
        return f"{self.span:g} x {self.share:.0%}"


def _spans(span: float, share: float, weight: float = 1.0) -> Denoiser:
    return Denoiser(span=span, share=share, weight=weight)


MIXTURES: Mapping[str, tuple[Denoiser, ...]] = {
    # T5Gemma 2 (arXiv:2512.14856, section 3): the last one is written there as one span of 3/4 of the text.
    "t5gemma2": (_spans(3, 0.15), _spans(12, 0.5), _spans(32, 0.15), _spans(32, 0.5), Denoiser(prefix=0.25, weight=4)),
    # UL2 (Tay et al. 2022, arXiv:2205.05131, table 2): R, S and X denoisers in equal parts.
    "ul2": (
        _spans(3, 0.15),
        _spans(8, 0.15),
        Denoiser(prefix=0.75),
        _spans(3, 0.5),
        _spans(8, 0.5),
        _spans(64, 0.15),
        _spans(64, 0.5),
    ),
    # UL2R (Tay et al. 2022, arXiv:2210.11399, section 3): half S, a quarter R, a quarter X. The prefix is ours.
    "ul2r": (Denoiser(prefix=0.75, weight=4), _spans(3, 0.15, 2), _spans(32, 0.15), _spans(3, 0.5)),
}


def _or_a_name(schema: dict[str, Any]) -> None:
    """For editors: a mixture may be a name."""
    schema["anyOf"] = [{"enum": list(MIXTURES)}, {"items": schema.pop("items"), "type": schema.pop("type")}]
    schema["default"] = "t5gemma2"


class Decoder(Part):
    """The decoder that restores hidden tokens. It starts as the base and is stored in checkpoints alone."""

    layers: Literal["all"] | int = Field("all", description="number of the base's last layers that it has; all: each")
    lora: Lora | None = Field(None, description="train adapters on a frozen decoder; null: train all its weights")
    shared: bool = Field(False, description="use the encoder's own layers in place of a copy of the base's")
    learning_rate: float | None = Field(
        None, gt=0, lt=1, description="peak of its own schedule; null: the stage's `optimizer.learning_rate`"
    )

    @model_validator(mode="after")
    def _something_of_its_own(self) -> "Decoder":
        if isinstance(self.layers, int) and self.layers < 1:
            raise ValueError(f"layers: {self.layers} layers cannot restore a token; use 1 or more, or all")
        if self.shared and (self.lora is not None or self.learning_rate is not None):
            raise ValueError(
                "shared: the encoder's layers are trained by model.train or model.lora; leave the rest out"
            )
        return self


class Ul2(Part):
    """Denoising with an encoder-decoder: adapts a causal model to bidirectional attention before contrast.

    UL2 (Tay et al. 2022, arXiv:2205.05131) in the layout of T5Gemma 2 (arXiv:2512.14856): the encoder reads a text in
    which spans are hidden, and a decoder restores them. A batch's `rows` are texts. Gemma 3 only.
    """

    kind: Literal["ul2"] = "ul2"
    mix: tuple[Denoiser, ...] = Field(
        MIXTURES["t5gemma2"],
        description="what is hidden: a published mixture (`t5gemma2`, the default, `ul2`, `ul2r`), or a list",
        json_schema_extra=_or_a_name,
    )
    decoder: Decoder = Field(Decoder(), description="the decoder: its size, and what of it is trained")
    sentinels: str | tuple[str, ...] = Field(
        "<unused{}>", description="tokens that mark hidden spans: a name with {} for a number, or a list of tokens"
    )
    held_out: int = Field(
        64, ge=0, le=10_000, description="texts that are never trained on, at most a tenth: their loss is logged"
    )
    texts: Literal["all", "queries", "documents"] = Field("all", description="which texts of rows are used")

    @field_validator("mix", mode="before")
    @classmethod
    def _published(cls, value: object) -> object:
        """A name is written out, so that the recipe in a run folder means the same if a mixture ever changes."""
        if isinstance(value, str):
            if value not in MIXTURES:
                raise ValueError(f"there is no mixture {value!r}; there are {', '.join(MIXTURES)}")
            return MIXTURES[value]
        return value

    @model_validator(mode="after")
    def _check(self) -> "Ul2":
        if not self.mix:
            raise ValueError("mix: the list is empty, so nothing would be hidden; name a denoiser or a mixture")
        labels = [denoiser.label for denoiser in self.mix]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"mix: two denoisers are {twice!r}; give one of them the weight of both")
        if isinstance(self.sentinels, str) and self.sentinels.count("{}") != 1:
            raise ValueError(f"sentinels: {self.sentinels!r} has no single {{}} for a number, as '<unused{{}}>' has")
        if not isinstance(self.sentinels, str) and len(set(self.sentinels)) < len(self.sentinels):
            raise ValueError("sentinels: a token is named more than once; each span needs its own")
        return self
