"""The formats, their number types, and how close an exported model must be to ours."""

from dataclasses import dataclass

from gemma4vec.errors import InputError

# format -> number types, the default first
FORMATS: dict[str, tuple[str, ...]] = {
    "st": ("f32",),
    "onnx": ("f32",),
    "gguf": ("f16", "f32", "q8_0", "q4_0"),
}
MIN_TEXTS = 256
UNIT = 1e-3  # largest distance of a vector's length from 1


@dataclass(frozen=True)
class Limits:
    """What an export must reach.

    Attributes:
        cosine: smallest cosine to our vector, over all texts.
        margin: largest difference of nDCG@10 that does not matter; it must be shown to be smaller.
        alone: smallest cosine of a text alone, or in another batch, to itself.
    """

    cosine: float
    margin: float
    alone: float


LIMITS = {
    "f32": Limits(0.9999, 0.002, 0.99999),
    "f16": Limits(0.9999, 0.002, 0.99999),
    "bf16": Limits(0.995, 0.005, 0.999),
    # llama.cpp rounds states to 8 bits too, in blocks that depend on the batch.
    "q8_0": Limits(0.995, 0.005, 0.999),
    # 4 bits without training for them lose far more (0.71 on a 270M model).
    "q4_0": Limits(0.95, 0.01, 0.99),
}


def check_format(to: str, dtype: str | None) -> str:
    """The number type to write.

    Raises:
        InputError: no such format, or the format does not hold that type.
    """
    if to not in FORMATS:
        raise InputError(f"--to {to}: unknown format; use {', '.join(FORMATS)}")
    chosen = dtype or FORMATS[to][0]
    if chosen not in FORMATS[to]:
        raise InputError(f"--dtype {chosen}: the format {to} is written as {', '.join(FORMATS[to])}")
    return chosen
