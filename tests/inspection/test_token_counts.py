"""Tokens of documents, counted as the model reads them."""

from pathlib import Path

import pytest
from planted_suite import PlantedModel
from tiny_saved import save_tiny

from gemma4vec.inspection.token_counts import token_counter
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.text.prompts import Document


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), "both-mean")


def test_ours_counts_prompt_and_title_and_stops_nowhere(folder: Path) -> None:
    model = Embedder.load(folder, dtype="fp32")
    counter = token_counter(CachedEmbedder(model))
    assert counter is not None and counter.limit == model.max_tokens
    long = Document("def list " * 300, "tree")
    counts = counter.count([Document("def"), long])
    assert counts[0] < counter.limit < counts[1]
    whole = model.tokenizer.hf_tokenizer(model.prompts.for_document(long).prompt + long.text)["input_ids"]
    assert counts[1] == len(whole)
    assert counter.of([Document("def"), long, long], [2]).tolist() == [-1, -1, counts[1]]


def test_a_model_without_a_limit_has_no_counter() -> None:
    assert token_counter(PlantedModel()) is None
