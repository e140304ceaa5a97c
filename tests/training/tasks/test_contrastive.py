"""Every grouping and layout gives one and the same loss and gradients: those of each text encoded alone."""

import math
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from float64_norms import use_float64_norms
from tiny_model import write_tiny
from torch import Tensor
from torch.nn import functional

from gemma4vec.data.batching.batches import RowBatch
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import Nce
from gemma4vec.text.prompts import Document
from gemma4vec.training.batches.micro_batches import can_share_prefix
from gemma4vec.training.tasks.contrastive import ContrastTask
from gemma4vec.training.tasks.text_hashes import text_hashes

# The second and fourth rows ask the same; the last one's hard negative is the first one's positive in other letters.
ROWS = [
    Row("read a file", [Document("def read(path): return open(path)", "io")], [Document("write"), Document("x" * 90)]),
    Row("sort the tree", [Document("graph sort node")], [Document("sort", "tree"), Document("the edge")]),
    Row("close", [Document("def close(self): self.file.close() or self.path.close()")], [Document("a"), Document("b")]),
    Row("Sort  the TREE", [Document("tree sorted for real")], [Document("data in key"), Document("list")]),
    Row("value of key", [Document("")], [Document("DEF read(path):  return open(path)", "IO"), Document("none")]),
]
SETTINGS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "attention": "bidirectional",
        "readout": {"name": "mean", "pool_prompt": False},
        "head": {"widths": [6]},
    },
    "llama": {"attention": "causal", "readout": {"name": "last_token"}, "head": None},
}
COMBINATIONS = [
    (kind, group) for kind in ("packed", "padded") for group in ("separate", "candidate_packed", "all_packed")
]


@pytest.fixture(autouse=True)
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    use_float64_norms(monkeypatch)


@pytest.fixture(scope="module", params=["gemma3", "llama"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingModel:
    folder = write_tiny(tmp_path_factory.mktemp(request.param), request.param, layers=2)
    settings = schema.Model(base=str(folder), lora=schema.Lora(rank=2), **SETTINGS[request.param])
    made = build(settings, folder, dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in made.trainable().items():
            if "lora_B" in name:  # zero at first, which would leave half of the gradients zero
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


def task_of(
    built: EmbeddingModel,
    kind: str = "packed",
    grouping: str = "all_packed",
    k: int = 2,
    share: bool = True,
    **batch: int,
) -> ContrastTask:
    stage = schema.Stage(
        data=(schema.source_of(name="a", path="a.jsonl"),),
        task=schema.Contrast(temperature=0.2, hard_negatives=k, share_hard_negatives=share, terms=(Nce(hardness=0.0),)),
        batch=schema.Batch(rows=len(ROWS), **batch),
        layout=schema.Layout(kind=kind, grouping=grouping, row_tokens=48, tokens_per_forward=100),
        budget=schema.Budget(steps=1),
    )
    return ContrastTask.make(stage, ROWS, built, max_tokens=60, seed=0)


def gradients(built: EmbeddingModel, loss: Tensor) -> dict[str, Tensor]:
    parameters = built.trainable()
    found = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


def alone(built: EmbeddingModel, prompt: str, text: str, limit: int) -> Tensor:
    """The unit vector of one text, by the library's own forward without any mask."""
    ids = built.tokenizer.hf_tokenizer(prompt + text, truncation=True, max_length=limit)["input_ids"]
    built.encoder.backbone.config._attn_implementation = "sdpa"  # the library's own; ours needs masks
    states = built.encoder.backbone.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
    if built.encoder.readout.name == "last_token":
        vector = states[-1]
    else:
        skipped = len(built.tokenizer.hf_tokenizer(prompt)["input_ids"])
        vector = states[skipped:].mean(0) if skipped < len(ids) else states.mean(0)
    if built.encoder.head is not None:
        vector = built.encoder.head[0].weight @ vector
    return functional.normalize(vector, dim=0)


def oracle(built: EmbeddingModel, drawn: RowBatch, limit: int, share: bool) -> Tensor:
    """InfoNCE, text by text and query by query."""

    def folded(text: str) -> str:
        return " ".join(text.lower().split())

    def document(value: Document) -> tuple[Tensor, str]:
        vector = alone(built, f"title: {value.title or 'none'} | text: ", value.text, limit)
        return vector, folded(f"{value.title or ''} {value.text}")

    queries = [alone(built, "task: search result | query: ", query, limit) for query in drawn.queries]
    asked = [folded(query) for query in drawn.queries]
    positives = [document(value) for value in drawn.positives]
    negatives = [[document(value) for value in row] for row in drawn.negatives]
    losses = []
    for i, query in enumerate(queries):
        answers = {text for j, (_, text) in enumerate(positives) if asked[j] == asked[i]} | {asked[i]}
        pool = [(j, *value) for j, value in enumerate(positives)]
        pool += [(-1, *value) for j, row in enumerate(negatives) for value in row if share or j == i]
        terms = [query @ vector / 0.2 for j, vector, text in pool if j == i or text not in answers]
        losses.append(torch.logsumexp(torch.stack(terms), 0) - query @ positives[i][0] / 0.2)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("share", [True, False])
def test_groupings_and_layouts_give_the_loss_and_gradients_of_texts_encoded_alone(
    built: EmbeddingModel, share: bool
) -> None:
    drawn = next(task_of(built).batches()).texts
    expected = oracle(built, drawn, 60, share)
    expected_gradients = gradients(built, expected)
    assert all(gradient.abs().max() > 1e-6 for gradient in expected_gradients.values())
    for kind, grouping in COMBINATIONS:
        task = task_of(built, kind, grouping, share=share)
        batch = next(task.batches())
        assert batch.texts == drawn
        assert len(batch.groups) == {"separate": 4, "candidate_packed": 2, "all_packed": 1}[grouping]
        loss = task.loss(built, batch)
        assert loss.value.item() == pytest.approx(expected.item(), abs=1e-9), (kind, grouping)
        for name, gradient in gradients(built, loss.value).items():
            torch.testing.assert_close(
                gradient, expected_gradients[name], rtol=0, atol=1e-9, msg=f"{kind} {grouping} {name}"
            )


@pytest.mark.parametrize(("kind", "grouping"), COMBINATIONS)
def test_without_hard_negatives(built: EmbeddingModel, kind: str, grouping: str) -> None:
    task = task_of(built, kind, grouping, k=0)
    batch = next(task.batches())
    loss = task.loss(built, batch)
    assert loss.value.item() == pytest.approx(oracle(built, batch.texts, 60, True).item(), abs=1e-9)
    assert loss.rows == 5
    assert loss.tokens == sum(int(layout.lengths_N.sum()) for layout in batch.layouts)
    cells = sum(layout.input_ids_RC.numel() for layout in batch.layouts)
    computed = sum(layout.computed_tokens for layout in batch.layouts)
    assert computed <= loss.tokens
    assert loss.padding_share == pytest.approx(1 - computed / cells) and 0 <= loss.padding_share < 1


def test_texts_are_cut_where_the_stage_says(built: EmbeddingModel) -> None:
    def longest(task: ContrastTask) -> tuple[int, int]:
        batch = next(task.batches())
        lengths = [max(int(layout.lengths_N.max()) for layout in group) for group in batch.groups]
        return lengths[0], max(lengths[1:])

    assert longest(task_of(built, "padded", "separate", query_tokens=30, document_tokens=40)) == (30, 40)
    # Never more than the model reads.
    queries, documents = longest(task_of(built, "padded", "separate", query_tokens=500, document_tokens=500))
    assert documents == 60 and queries <= 60
    loss = task_of(built, query_tokens=30, document_tokens=40)
    assert math.isfinite(loss.loss(built, next(loss.batches())).value.item())


def test_batches_go_on_where_they_are_asked_to(built: EmbeddingModel) -> None:
    task = task_of(built)
    straight = [batch.texts for batch in islice(task.batches(), 5)]
    assert [batch.texts for batch in islice(task.batches(3), 2)] == straight[3:]
    again, same = next(task.batches(2)), next(task.batches(2))
    for a, b in zip(again.layouts, same.layouts, strict=True):
        assert torch.equal(a.input_ids_RC, b.input_ids_RC)
    assert task.rows_per_batch == 5


def test_keys_are_equal_for_equal_texts_alone() -> None:
    keys = text_hashes(["Sort the  tree\n", "sort the tree", "sort the trees", "", " \n", "\ud800"])
    assert keys[0] == keys[1] and keys[3] == keys[4] and len(set(keys.tolist())) == 4
    documents = text_hashes(
        [Document("the tree", "Sort"), Document("sort the tree"), Document("the tree"), Document("")]
    )
    assert documents[0] == documents[1] == keys[0] and documents[2] not in keys and documents[3] == keys[3]
    assert keys.dtype == torch.long and text_hashes([]).tolist() == []


def test_beginnings_are_shared_where_that_changes_nothing_else(built: EmbeddingModel) -> None:
    causal = built.encoder.backbone.causal
    task = task_of(built)
    assert task.shares_prefix is causal
    batch = next(task.batches())
    assert any(layout.shared for layout in batch.layouts) is causal
    whole = next(replace(task, shares_prefix=False).batches())
    assert sum(layout.real_tokens for layout in whole.layouts) == sum(layout.real_tokens for layout in batch.layouts)
    shared_loss, whole_loss = task.loss(built, batch), task.loss(built, whole)
    assert shared_loss.tokens == whole_loss.tokens
    torch.testing.assert_close(shared_loss.value, whole_loss.value, rtol=0, atol=1e-9)
    shared_gradients, whole_gradients = gradients(built, shared_loss.value), gradients(built, whole_loss.value)
    for name, gradient in whole_gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, rtol=1e-9, atol=1e-9)


def test_sharing_that_a_model_does_not_allow_is_refused_by_key(built: EmbeddingModel) -> None:
    layout = schema.Layout(share_prefixes=True)
    if built.encoder.backbone.causal:
        assert can_share_prefix(layout, built.encoder)
        built.encoder.readout.dropout = torch.nn.Dropout(0.1)
        with pytest.raises(InputError, match=r"layout\.share_prefixes: dropout would be the same"):
            can_share_prefix(layout, built.encoder)
        assert not can_share_prefix(schema.Layout(), built.encoder)
        del built.encoder.readout.dropout
    else:
        with pytest.raises(InputError, match=r"layout\.share_prefixes: attention is bidirectional"):
            can_share_prefix(layout, built.encoder)
