"""What every part of a recipe is."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a recipe: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
