"""A tiny Gemma 3 with a tokenizer of Gemma's kind, trained by a random number generator, as a finished run saves it."""

import itertools
from pathlib import Path
from typing import Any

import torch
from tiny_model import TEXTS, WORDS, gemma3
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import GemmaTokenizer

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.data.suites.retrieval import write_suite as write
from gemma4vec.files import write_json
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.encoder.build import build
from gemma4vec.model.save.write_model import save_model
from gemma4vec.recipe.schema import Budget, Model, Recipe, Stage, source_of
from gemma4vec.text.prompts import Document

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
VOCABULARY = 648
MAX_TOKENS = 48
PROMPTS = {"query": "find: ", "document": "text: "}


def gemma_like_tokenizer() -> GemmaTokenizer:
    """BPE with byte fallback, whose merges are all pairs that make a token, ordered by the token, as Gemma's are."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trained.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=200, show_progress=False)
    trained.train_from_iterator([*TEXTS, *PROMPTS.values()], trainer)
    pieces = sorted(trained.get_vocab(), key=lambda piece: trained.get_vocab()[piece])
    pieces = list(dict.fromkeys([*pieces, "\u2581", *map(chr, range(33, 127)), *"éñßдом東京"]))
    words = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    known = set(pieces)
    merges = [
        (piece[:at], piece[at:])
        for piece in pieces
        for at in range(1, len(piece))
        if piece[:at] in known and piece[at:] in known
    ]
    assert len(words) <= VOCABULARY
    return GemmaTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=merges, add_bos_token=True)


def write_tiny_gemma(folder: Path, *, layers: int = 2, window: int = 8) -> Path:
    """A base folder: sliding and full layers in turn."""
    torch.manual_seed(1)
    model = gemma3(layers, window)
    model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(0, 0.2)
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    gemma_like_tokenizer().save_pretrained(folder)
    return folder


def save_tiny_run(folder: Path, matryoshka: tuple[int, ...] = (), **changes: Any) -> Path:
    """A finished run folder of a tiny model; `changes` are of the recipe's model part."""
    base = write_tiny_gemma(folder / "base")
    settings = {"base": str(base), "lora": None, "train": "full", "max_tokens": MAX_TOKENS, "prompts": PROMPTS}
    model = Model.model_validate(settings | changes)
    task = {"kind": "contrast", "terms": [{"kind": "nce", **({"matryoshka": matryoshka} if matryoshka else {})}]}
    stage = Stage.model_validate(
        {"data": (source_of(name="a", path="a.jsonl"),), "budget": Budget(steps=1), "task": task}
    )
    recipe = Recipe(name="tiny", model=model, stages=(stage,), seed=5)
    fresh = build(model, base, dtype=torch.float32, seed=5)
    trained = {name: value.detach().clone() for name, value in fresh.trainable().items()}
    run = folder / "run"
    save_model(run / "model", recipe, resolve_base(str(base)), trained, data={}, name="tiny")
    write_json(run / "manifest.json", {"run_id": "run", "status": "finished"})
    return run


def write_suite(folder: Path, queries: int = 30) -> Path:
    """A small retrieval suite in BEIR's layout, whose documents are words and their neighbors."""
    words = WORDS.split()
    pairs = list(itertools.islice(itertools.permutations(words, 2), queries))
    suite = RetrievalSuite(
        name="tiny-dev",
        corpus_ids=[f"d{n}" for n in range(queries)],
        corpus=[Document(f"{a} {b} the {a} node of {b}") for a, b in pairs],
        query_ids=[f"q{n}" for n in range(queries)],
        queries=[f"{a} {b}" for a, b in pairs],
        qrels={f"q{n}": {f"d{n}": 1} for n in range(queries)},
        exclude_identical_ids=False,
        role="dev",
        code=False,
        counts={"queries": queries, "documents": queries},
    )
    write(folder, suite)
    return folder
