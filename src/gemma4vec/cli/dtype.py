"""The option --dtype of commands that open a model."""

from typing import Annotated

import typer

from gemma4vec.errors import InputError

DTYPES = ("auto", "fp32", "bf16")
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto (the fastest here), fp32 or bf16.")]


def read_dtype(dtype: str) -> str | None:
    """The type of numbers that was asked for; None: the fastest here.

    Raises:
        InputError: there is no such type.
    """
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype}: use one of {', '.join(DTYPES)}")
    return None if dtype == "auto" else dtype
