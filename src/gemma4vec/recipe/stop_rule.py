"""The recipe's words for what is fixed before training: when a stage stops early, and what a remedy claims."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gemma4vec.recipe.part import Part

Share = Annotated[float, Field(gt=0, lt=1)]


class StopRule(Part):
    """Stop at a look where even the upper end of the interval of (this model - reference) is below `smallest_effect`.

    The confidence is shared out among all looks of the grid (docs/concepts/statistics.md, "The stop rule").
    """

    reference: str = Field(min_length=1, description="a run (id or folder), bm25, or the folder of a saved result")
    smallest_effect: float = Field(
        gt=-1, lt=1, description="smallest difference to the reference worth having; below 0: how far below it is fine"
    )
    metric: Literal["ndcg@10", "recall@100", "mrr@10", "map"] = Field("ndcg@10", description="metric of the comparison")
    at_shares: tuple[Share, ...] = Field((), description="looks after these shares of the steps, such as [0.25, 0.5]")
    at_steps: tuple[Annotated[int, Field(ge=1)], ...] = Field((), description="or after these steps")
    reference_at: Literal["end", "same_place"] = Field(
        "end", description="same_place: a run's checkpoints of the same shares or steps, not its finished model"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="confidence of all looks together")

    @property
    def grid(self) -> tuple[float, ...]:
        """The planned looks, as shares or as steps."""
        return self.at_shares or self.at_steps

    def steps(self, total: int) -> list[int]:
        """After which steps the looks are, of `total`; a share is rounded, and is a step at least."""
        return list(self.at_steps) or [max(1, round(share * total)) for share in self.at_shares]

    @model_validator(mode="after")
    def _planned(self) -> "StopRule":
        if bool(self.at_shares) == bool(self.at_steps):
            raise ValueError("give the looks beforehand: at_shares or at_steps, one of the two")
        if list(self.grid) != sorted(set(self.grid)):
            key = "at_shares" if self.at_shares else "at_steps"
            raise ValueError(f"{key}: each look once, in rising order, not {list(self.grid)}")
        if self.reference == "latest":
            raise ValueError("reference: latest is another run each time; give the run's id or folder")
        if self.reference == "bm25" and self.reference_at == "same_place":
            raise ValueError("reference_at: bm25 is not trained and has no same place; leave reference_at out")
        return self


class Claim(Part):
    """What a remedy is to reach on one slice of a dev suite; `gemma4vec inspect verify` asks whether it did.

    `inspect remedy` writes it. Run and ledger keep it as it was when training began.
    """

    slice: str = Field(min_length=1, description="the slice as a rule, such as `overlap <= 0.3`")
    suite: str = Field(min_length=1, description="the dev suite, as `inspect --suite` takes it")
    task: str | None = Field(None, description="one task of a suite of several")
    suite_fingerprint: str = Field(min_length=1, description="hash of the suite's contents")
    metric: Literal["ndcg@10", "recall@100", "mrr@10", "map"] = Field("ndcg@10", description="metric of the claim")
    smallest_effect: float = Field(gt=0, lt=1, description="smallest gain on the slice worth having")
    not_worse_elsewhere: float = Field(0.01, gt=0, lt=1, description="largest loss outside the slice that is accepted")
