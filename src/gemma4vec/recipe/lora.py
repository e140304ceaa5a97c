"""The recipe's words for adapters."""

from typing import Literal

from pydantic import Field, field_validator

from gemma4vec.recipe.part import Part


class Lora(Part):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) on the frozen base, through peft."""

    rank: int = Field(16, ge=1, le=1024, description="inner width of each adapter")
    alpha: float = Field(32.0, gt=0, description="the update is scaled by alpha / rank (rslora: alpha / sqrt(rank))")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the input of each adapter, in training")
    modules: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description='names of linear layers, such as [q_proj, v_proj], or "all-linear"'
    )
    last_layers: int | float | None = Field(
        None,
        gt=0,
        description="adapt only this number of last layers, or, below 1, this share of all layers; null: all",
    )
    rslora: bool = Field(False, description="rank-stabilized scaling (Kalajdzievski 2023, arXiv:2312.03732)")
    dora: bool = Field(False, description="a trained magnitude for each output (Liu et al. 2024, arXiv:2402.09353)")

    @field_validator("last_layers")
    @classmethod
    def _whole_or_share(cls, value: int | float | None) -> int | float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError(f"{value} is neither a number of layers nor a share below 1")
        return int(value) if value is not None and value >= 1 else value
