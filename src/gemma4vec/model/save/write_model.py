"""Save a trained model: merged in sentence-transformers' format, and the adapter in peft's.

Adapters are merged in fp32, from a freshly loaded base and the optimizer's fp32 weights, so that bf16 loses nothing.
With a standard readout, the folder contains only sentence-transformers' own modules and opens without gemma4vec.
Otherwise backbone and readout form one module of ours (`model.save.encoder_module`).
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import atomic_folder, disk_errors, sha256_file, write_json
from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.model.bases.weights import hash_lines, hash_settings
from gemma4vec.model.encoder.build import EmbeddingModel, build, recipe_prompts
from gemma4vec.model.save.model_card import model_card, with_quantization
from gemma4vec.model.save.quantization import (
    QUANTIZATION,
    Quantization,
    check_written,
    merge_and_round,
    quantized_bytes,
    saved_grids,
    write_codes,
)
from gemma4vec.model.save.read_model import FORMAT, SETTINGS_FILE, fingerprint_of
from gemma4vec.model.save.served_folder import ADVICE, make_servable
from gemma4vec.model.tokenize.prompt_boundary import save_tokenizer
from gemma4vec.reading.json_values import read_json
from gemma4vec.recipe.renamed import first_names
from gemma4vec.recipe.schema import Recipe
from gemma4vec.text.prompts import Prompts

# Temporary folder of the backbone, until sentence-transformers has written it again.
_TRANSFORMER = "transformer"
# Older keys of sentence-transformers' pooling config. We write both formats, because servers read one or the other.
_LEGACY_POOLING = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def save_model(
    folder: Path,
    recipe: Recipe,
    base: ResolvedBase,
    trained: Mapping[str, Tensor],
    *,
    data: Mapping[str, Any],
    name: str,
    made_from: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    checkpoint: str = "",
    quantization: Quantization | None = None,
    evaluated: Mapping[str, Tensor] | None = None,
) -> str:
    """Write `folder` (merged, for `SentenceTransformer`) and `adapter/` next to it (peft), each whole or not at all.

    Args:
        folder: the model's folder.
        recipe: the run's recipe.
        base: the base, resolved.
        trained: fp32 values of the trained parameters, by name.
        data: stage -> source -> its facts, for the model card.
        name: the model's name.
        made_from: names and hashes of base and start, for runs that start from this model.
        dtype: dtype of the saved weights.
        checkpoint: the exported checkpoint, in words.
        quantization: how the merged weights are quantized; None: they are not. `dtype` is fp32 then.
        evaluated: quantized weights by name that a model was evaluated with, which the folder must have.

    Returns:
        The hash of the weights (`model.bases.weights.hash_weights`).

    Raises:
        InputError: the trained weights belong to another recipe.
        WorkError: the disk is full; or what was written is not on the grid, or not what was evaluated.
    """
    embedding_model = build(recipe.model, base.path, dtype=torch.float32, seed=recipe.seed)
    embedding_model.load_trained({key: value.float() for key, value in trained.items()})
    if embedding_model.adapters is not None:
        with atomic_folder(folder.parent / "adapter") as temporary:
            embedding_model.adapters.peft_config["default"].base_model_name_or_path = recipe.model.start or base.name
            embedding_model.adapters.save_pretrained(str(temporary), save_embedding_layers=False)
    if quantization is not None:
        merge_and_round(embedding_model, quantization.scheme)
    elif embedding_model.adapters is not None:
        embedding_model.encoder.backbone.model = embedding_model.adapters.merge_and_unload()
    with atomic_folder(folder) as temporary:
        weights = _write(
            temporary, recipe, base, embedding_model, dtype, data, name, made_from or {}, checkpoint, quantization
        )
        if quantization is not None:
            check_written(temporary, quantization.scheme, evaluated)
        return weights


def _write(
    folder: Path,
    recipe: Recipe,
    base: ResolvedBase,
    embedding_model: EmbeddingModel,
    dtype: torch.dtype,
    data: Mapping[str, Any],
    name: str,
    made_from: Mapping[str, Any],
    checkpoint: str,
    quantization: Quantization | None,
) -> str:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize

    dimension, standard = (
        embedding_model.encoder.dimension,
        embedding_model.encoder.readout.sentence_transformers is not None,
    )
    settings: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "dtype": str(dtype).removeprefix("torch."),
        # The first names of its keys, so that earlier versions open the folder too; they know no start.
        "model": first_names(recipe.model.model_dump(mode="json", exclude={"start"}), "model"),
        "made_from": dict(made_from),
        "licence": base.licence,
    }
    embedding_model.encoder.backbone.model.to(dtype)
    head = _head_modules(embedding_model)
    first = (
        _standard_modules(folder, recipe, embedding_model, dtype)
        if standard
        else _own_modules(recipe, embedding_model, settings)
    )
    model = SentenceTransformer(
        modules=[*first, *head, Normalize()],
        prompts=_plain_prompts(recipe_prompts(recipe.model)),
        similarity_fn_name="cosine",
        device="cpu",
        trust_remote_code=False,
    )
    with _full_disks(folder):
        model.save(str(folder), create_model_card=False)
        shutil.rmtree(folder / _TRANSFORMER, ignore_errors=True)
        for file in folder.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors lets only the owner read them
    if standard:
        write_both_pooling_schemas(folder / "1_Pooling" / "config.json")
    if quantization is not None:
        settings[QUANTIZATION] = quantization.as_json()
        with _full_disks(folder):
            write_codes(folder, quantization.scheme)
    make_servable(folder, causal=recipe.model.attention == "causal", matryoshka=trained_lengths(recipe, dimension))
    weights = [f"{file.relative_to(folder)} {sha256_file(file)}" for file in sorted(folder.rglob("*.safetensors"))]
    settings["fingerprint"] = fingerprint_of(weights, settings)
    settings["files"] = hash_settings(folder)
    write_json(folder / SETTINGS_FILE, settings)
    card = model_card(recipe, base, data, dimension, checkpoint, standard=standard)
    if quantization is not None:
        card = with_quantization(card, quantization.describe(quantized_bytes(saved_grids(folder, quantization.scheme))))
    (folder / "README.md").write_text(card, encoding="utf-8")
    return hash_lines(weights)


def _standard_modules(
    folder: Path, recipe: Recipe, embedding_model: EmbeddingModel, dtype: torch.dtype
) -> list[torch.nn.Module]:
    """Backbone and readout as sentence-transformers' own modules."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    encoder, readout = embedding_model.encoder, embedding_model.encoder.readout
    with _full_disks(folder):
        encoder.backbone.save_pretrained(folder / _TRANSFORMER, dtype)
        save_tokenizer(
            embedding_model.tokenizer.hf_tokenizer, folder / _TRANSFORMER, keep_normalizer=not readout.pool_prompt
        )
    encoder.backbone.model = None  # sentence-transformers loads it again; avoid a third copy
    return [
        Transformer(
            str(folder / _TRANSFORMER),
            max_seq_length=recipe.model.max_tokens,
            model_kwargs={"dtype": dtype, "trust_remote_code": False},
            config_kwargs={"trust_remote_code": False},
            processor_kwargs={"trust_remote_code": False},
        ),
        Pooling(readout.dimension, pooling_mode=readout.sentence_transformers, include_prompt=readout.pool_prompt),
    ]


def _own_modules(recipe: Recipe, embedding_model: EmbeddingModel, settings: dict[str, Any]) -> list[torch.nn.Module]:
    """Backbone and readout as one module of ours."""
    from gemma4vec.model.save.encoder_module import Gemma4VecEncoder

    return [Gemma4VecEncoder(embedding_model, settings, recipe.model.max_tokens)]


def _head_modules(embedding_model: EmbeddingModel) -> list[torch.nn.Module]:
    from sentence_transformers.sentence_transformer.modules import Dense

    modules: list[torch.nn.Module] = []
    for linear in embedding_model.encoder.head.layers if embedding_model.encoder.head is not None else ():
        bias = linear.bias is not None
        dense = Dense(linear.in_features, linear.out_features, bias=bias, activation_function=None)
        dense.linear.load_state_dict(linear.state_dict())
        modules.append(dense)
    return modules


@contextlib.contextmanager
def _full_disks(folder: Path) -> Iterator[None]:
    """Report a full disk, for which each library has its own error, in one line."""
    try:
        with disk_errors(folder):
            yield
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise WorkError(f"could not write {folder}: {reason}; is the disk full? free space and resume") from error


def _plain_prompts(prompts: Prompts) -> dict[str, str]:
    """Prompts as fixed texts for sentence-transformers, whose documents have no title: it is "none"."""
    return {"query": prompts.query, "document": prompts.for_document("").prompt}


def trained_lengths(recipe: Recipe, dimension: int) -> list[int]:
    """Lengths of the vector prefixes that the last stage trained, with the whole one; empty without Matryoshka terms.

    A prefix counts if every term with a weight that has prefixes has it.
    """
    terms = [term for term in getattr(recipe.stages[-1].task, "terms", ()) if term.weight > 0 and term.matryoshka]
    if not terms:
        return []
    common = set.intersection(*(set(term.matryoshka) for term in terms))
    return sorted({length for length in common if length < dimension} | {dimension}) if common else []


def write_both_pooling_schemas(file: Path) -> None:
    """Write a pooling config's mode in both spellings: servers read one or the other."""
    config = read_json(file, "the settings of pooling", ADVICE, foreign=True)
    if not isinstance(config, dict) or not {"embedding_dimension", "pooling_mode"} <= set(config):
        raise InputError(f"{file} lacks embedding_dimension or pooling_mode; {ADVICE}")
    config["word_embedding_dimension"] = config["embedding_dimension"]
    for mode, key in _LEGACY_POOLING.items():
        config[key] = mode == config["pooling_mode"]
    write_json(file, config)
