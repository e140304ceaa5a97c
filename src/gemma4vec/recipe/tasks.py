"""The recipe's words for tasks: what a stage learns from its data."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gemma4vec.recipe.denoising import Ul2
from gemma4vec.recipe.inversion import Suggestion, VectorToText
from gemma4vec.recipe.part import Part
from gemma4vec.recipe.terms import HARDNESS, AnyTerm, LearnedTemperature, Nce, OnOwnNegatives


class Contrast(Part):
    """InfoNCE over in-batch and hard negatives (van den Oord et al. 2018, arXiv:1807.03748)."""

    kind: Literal["contrast"] = "contrast"
    temperature: float = Field(0.05, gt=0, description="similarities are divided by it before the softmax")
    learn_temperature: LearnedTemperature | None = Field(
        None, description="train the temperature of terms that set none of their own; null: keep it fixed"
    )
    hard_negatives: int = Field(0, ge=0, description="number of hard negatives drawn for each row and epoch")
    share_hard_negatives: bool = Field(True, description="every row also sees the other rows' hard negatives")
    terms: tuple[AnyTerm, ...] = Field(
        (Nce(),), min_length=1, description="terms whose weighted sum is the loss (guides/objectives.md)"
    )

    @model_validator(mode="after")
    def _hardness(self) -> "Contrast":
        """Say what a term leaves open, so that the recipe in a run folder means the same whatever the default is."""
        alpha = HARDNESS if self.hard_negatives else 0.0
        open_terms = [isinstance(term, Nce) and term.hardness is None for term in self.terms]
        if any(open_terms):
            closed = (
                term.model_copy(update={"hardness": alpha}) if is_open else term
                for term, is_open in zip(self.terms, open_terms, strict=True)
            )
            object.__setattr__(self, "terms", tuple(closed))  # the part is being made, and immutable afterwards
        return self

    @model_validator(mode="after")
    def _check_terms(self) -> "Contrast":
        labels = [term.label for term in self.terms]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"two terms are called {twice!r} in the log; give one of them a name")
        if not any(term.weight for term in self.terms):
            raise ValueError("all terms have weight 0, so nothing would be trained")
        bounds = self.learn_temperature
        if bounds is not None and not bounds.minimum < self.temperature < bounds.maximum:
            raise ValueError(
                f"learn_temperature: temperature {self.temperature:g} is not between its bounds {bounds.minimum:g} and "
                f"{bounds.maximum:g}"
            )
        weighted = next((term for term in self.terms if isinstance(term, Nce) and term.hardness), None)
        if weighted is not None and not self.hard_negatives:
            raise ValueError(
                f"{weighted.label}.hardness weighs a row's own hard negatives, hard_negatives is 0; set it to 1 or more"
            )
        own = next((term for term in self.terms if isinstance(term, OnOwnNegatives)), None)
        if own is not None and not self.hard_negatives:
            raise ValueError(
                f"{own.label} compares a row's positive with its own hard negatives, hard_negatives is 0; set it "
                "to 1 or more"
            )
        return self


class MaskedNextToken(Part):
    """Masked next-token prediction: teaches a causal model to use the tokens after a token, before contrast.

    LLM2Vec (BehnamGhader et al. 2024, arXiv:2404.05961, section 2.2). A batch's `rows` are texts here.
    """

    kind: Literal["masked_next_token"] = "masked_next_token"
    mask_share: float = Field(0.2, gt=0, lt=1, description="share of tokens to predict")
    mask_token: str = Field("_", description="token of the vocabulary that replaces them")
    random_share: float = Field(
        0.1, ge=0, le=1, description="share of predicted tokens replaced by a random token instead"
    )
    unchanged_share: float = Field(0.1, ge=0, le=1, description="share of predicted tokens left unchanged")
    texts: Literal["all", "queries", "documents"] = Field("all", description="which texts of rows are used")

    @model_validator(mode="after")
    def _shares(self) -> "MaskedNextToken":
        if self.random_share + self.unchanged_share > 1:
            raise ValueError("random_share and unchanged_share together are more than 1")
        return self


Task = Annotated[Contrast | MaskedNextToken | Ul2 | VectorToText | Suggestion, Field(discriminator="kind")]
# Tasks whose result writes texts and makes no vectors.
WRITERS = (VectorToText, Suggestion)
