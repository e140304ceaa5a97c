"""The result of a vector_to_text run: a decoder's folder, from the last checkpoint's full-precision weights."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gemma4vec.errors import InputError
from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.model.inverter.decoder_folder import DecoderFacts, write_decoder
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.engine.checkpoint import objective_weights, trained_weights
from gemma4vec.training.tasks.vector_to_text import VectorToTextTask
from gemma4vec.training.writing.merged_base import PREFIX, merge_base


def save_decoder(
    folder: Path,
    recipe: Recipe,
    base: ResolvedBase,
    task: VectorToTextTask,
    checkpoint: Path,
    *,
    name: str,
    made_from: Mapping[str, Any],
) -> str:
    """Write the decoder's folder; adapters are merged in fp32. Return the hash of its weights.

    Raises:
        InputError: the checkpoint is damaged or belongs to another recipe. WorkError: the disk is full.
    """
    parts = merge_base(recipe, base, trained_weights(checkpoint))
    prefix = deepcopy(task.prefix).to("cpu", torch.float32)
    own = {key.removeprefix(PREFIX): value.float() for key, value in objective_weights(checkpoint).items()}
    missing = prefix.load_state_dict(own, strict=False).missing_keys
    if set(missing) - {"size"}:
        raise InputError(f"{checkpoint} has no weights of soft tokens; it belongs to another recipe")
    chosen = _chosen(len(task.texts), task.settings.keep_texts)
    facts = DecoderFacts(
        name=name,
        encoder=task.source.identity,
        encoder_name=task.source.name,
        role=task.settings.role,
        dimension=prefix.dimension,
        prefix_tokens=prefix.tokens,
        prefix_hidden=prefix.hidden,
        max_tokens=len(task.frame.before) + task.frame.text_tokens,
        text_tokens=task.frame.text_tokens,
        trained_texts=len(task.texts),
        stored_texts=len(chosen),
        held_out=task.held_out_hashes(),
        made_from=dict(made_from),
        licence=base.licence,
    )
    return write_decoder(
        folder,
        facts,
        parts,
        prefix,
        [task.texts[number] for number in chosen.tolist()],
        task.vectors_Nd[chosen],
        _card(facts, base),
    )


def _chosen(texts: int, most: int) -> "np.typing.NDArray[np.int64]":
    """Numbers of the texts that are stored: all, or a random sample that is the same for the same number."""
    if texts <= most:
        return np.arange(texts)
    return np.sort(np.random.default_rng(0).permutation(texts)[:most])


def _card(facts: DecoderFacts, base: ResolvedBase) -> str:
    return (
        f"# {facts.name}\n\nA decoder of gemma4vec: it writes texts from {facts.role} vectors ({facts.dimension} "
        f"dimensions) of `{facts.encoder_name}`, and of no other model.\n\n    gemma4vec invert MODEL --decoder DIR "
        f'--text "..."\n\nIt was trained on {facts.trained_texts:,} texts, and can repeat them; '
        f"{facts.stored_texts:,} of them are in texts.jsonl. Delete texts.jsonl and vectors.npy before you give the "
        "folder to someone who must not read them.\n\n"
        f"Derived from `{base.name}`; licence of the base: {base.licence or 'not stated by the base model'}. "
        "Its terms apply to this decoder.\n"
    )
