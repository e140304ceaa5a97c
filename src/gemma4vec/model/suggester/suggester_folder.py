"""The folder of a suggester: a causal base in the library's format, and its facts. Nothing in it is a pickle.

suggester.json        what it reads, and hashes of its queries, names of its documents
base/, head.safetensors   see `model.inverter.causal_base`
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from gemma4vec.files import atomic_folder, disk_errors, write_json
from gemma4vec.model.inverter.causal_base import (
    CausalBase,
    damage_as_input_error,
    find_result,
    hash_written,
    open_causal_base,
    read_result_facts,
    save_causal_base,
)
from gemma4vec.model.suggester.suggestion_frame import SuggestionFrame
from gemma4vec.recipe.inversion import SUGGESTER_FILE, Reading
from gemma4vec.recipe.part import Part

FORMAT = 1
_ADVICE = "copy the suggester's folder again from its run"


class SuggesterFacts(Part):
    """What `suggester.json` says."""

    format: Literal[1] = 1
    name: str = Field(description="the run that trained it")
    reading: Reading = Field(description="most tokens of what it reads")
    max_tokens: int = Field(ge=1, description="all that it reads and writes")
    trained_pairs: int = Field(ge=0, description="number of pairs that it was trained on")
    queries: tuple[str, ...] = Field(description="hashes of their queries (`words_key`)")
    documents: tuple[str, ...] = Field(description="the documents that they were made for (`group` of their rows)")
    held_out: tuple[str, ...] = Field(description="hashes of the queries that were held out")
    made_from: dict[str, Any] = Field(description="name and hashes of the base")
    licence: str | None = Field(None, description="the base's")


@dataclass(frozen=True)
class OpenSuggester(CausalBase):
    """A suggester's parts.

    Attributes:
        facts: what its file says.
        folder: where it is.
        frame: what stands before a suggestion.
    """

    facts: SuggesterFacts
    folder: Path
    frame: SuggestionFrame


def write_suggester(folder: Path, facts: SuggesterFacts, base: CausalBase, card: str) -> str:
    """Write the folder, whole or not at all; return the hash of its weights.

    Raises:
        WorkError: the disk is full.
    """
    with atomic_folder(folder) as temporary, disk_errors(folder):
        save_causal_base(temporary, base)
        write_json(temporary / SUGGESTER_FILE, facts.model_dump(mode="json"))
        (temporary / "README.md").write_text(card, encoding="utf-8")
        return hash_written(temporary)


def find_suggester(name: str | Path, option: str = "--suggester") -> Path:
    """The folder of a suggester: itself, or the `model` folder of the run that trained it.

    Raises:
        InputError: nothing is there, or something else; the line begins with `option`.
    """
    return find_result(name, SUGGESTER_FILE, option=option, what="suggester", task="suggestion")


def read_suggester_facts(folder: Path) -> SuggesterFacts:
    """What a suggester's file says.

    Raises:
        InputError: it is missing or damaged, or a later release wrote it.
    """
    return read_result_facts(folder / SUGGESTER_FILE, SuggesterFacts, FORMAT, "suggester", _ADVICE)


def open_suggester(folder: Path, *, dtype: torch.dtype, device: str) -> OpenSuggester:
    """Load a suggester's weights, and measure that no token sees a later one.

    Raises:
        InputError: a file is missing or damaged. WorkError: its attention is not causal.
    """
    facts = read_suggester_facts(folder)
    with damage_as_input_error("suggester", folder, _ADVICE):
        base = open_causal_base(folder, dtype=dtype, device=device, task="suggestion")
    frame = SuggestionFrame.of(base.tokenizer, facts.reading, facts.max_tokens)
    return OpenSuggester(base.backbone, base.head, base.tokenizer, facts, folder, frame)
