"""Masked next-token prediction: what is masked, what is predicted from where, and that no document sees another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TEXTS, write_tiny
from tiny_run import rows

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.errors import InputError
from gemma4vec.model.backbone.lm_head import load_head
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.packing.packed_batch import Tokens, lay_out
from gemma4vec.model.tokenize.tokenizer import load_tokenizer
from gemma4vec.recipe import schema
from gemma4vec.training.preflight import check_data, check_mask_tokens
from gemma4vec.training.tasks.make_task import make_task
from gemma4vec.training.tasks.masked_next_token import MaskedBatch, MaskedNextTokenTask


@pytest.fixture(scope="module", params=["gemma3", "llama"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp(request.param), request.param)


def stage_of(**parts: Any) -> schema.Stage:
    return schema.Stage.model_validate(
        {
            "data": [{"name": "t", "source": "text", "path": "t.txt"}],
            "task": {"kind": "masked_next_token"} | parts.get("task", {}),
            "batch": {"rows": 8} | parts.get("batch", {}),
            "layout": {"row_tokens": 32, "tokens_per_forward": 64, "compile": False} | parts.get("layout", {}),
            "budget": {"steps": 1},
        }
    )


def task_of(
    stage: schema.Stage, loaded: TrainingData, built: EmbeddingModel, base: Path, seed: int = 0
) -> MaskedNextTokenTask:
    task = make_task(stage, loaded, built, lambda: load_head(built.encoder.backbone, base), max_tokens=48, seed=seed)
    assert isinstance(task, MaskedNextTokenTask)
    return task


def made(base: Path, readout: str = "mean", seed: int = 0, **parts: Any) -> tuple[MaskedNextTokenTask, EmbeddingModel]:
    model = schema.Model.model_validate({"base": str(base), "lora": {"rank": 4}, "readout": {"name": readout}})
    built = build(model, base, dtype=torch.float32)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for name, parameter in built.trainable().items():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    task = task_of(stage_of(**parts), TrainingData(texts=TEXTS), built, base, seed)
    return task, built


def shown(batch: MaskedBatch) -> list[list[int]]:
    return [layout.input_ids_RC.flatten().tolist() for layout in batch.layouts]


def test_a_batch_depends_on_seed_and_number_alone(base: Path) -> None:
    first, second = made(base)[0], made(base)[0]
    one, other = first.batches(), second.batches(start=3)
    expected = [next(one) for _ in range(5)]
    for number in (3, 4):
        again = next(other)
        assert shown(again) == shown(expected[number]) and again.texts == expected[number].texts
        assert all(torch.equal(a, b) for a, b in zip(again.targets, expected[number].targets, strict=True))
    assert shown(next(made(base, seed=1)[0].batches())) != shown(expected[0])
    epoch = len(TEXTS) // 8
    later = first.batches(start=epoch)
    assert next(later).texts.epoch == 1


@pytest.mark.parametrize("kind", ["packed", "padded"])
@pytest.mark.parametrize("readout", ["mean", "last_token"])  # the latter appends an EOS, which is never predicted
def test_a_token_is_predicted_from_the_position_before_it_in_its_own_document(
    base: Path, kind: str, readout: str
) -> None:
    task, _ = made(base, readout, layout={"kind": kind})
    special = set(task.tokenizer.hf_tokenizer.all_special_ids)
    batch = next(task.batches())
    whole = [task.tokenizer.hf_tokenizer(text)["input_ids"] for text in batch.texts.texts]
    several = False
    for layout, before, targets in zip(batch.layouts, batch.before, batch.targets, strict=True):
        several = several or len(layout.documents) > layout.input_ids_RC.shape[0]
        starts = layout.lengths_N.cumsum(0) - layout.lengths_N
        for at, target in zip(before.tolist(), targets.tolist(), strict=True):
            n = int(torch.searchsorted(starts, at, right=True)) - 1
            place = at - int(starts[n]) + 1
            assert 1 <= place < int(layout.lengths_N[n])  # the predicted token is still inside this document
            assert whole[layout.documents[n]][place] == target and target not in special
    assert several == (kind == "packed")
    assert sum(map(len, batch.targets)) >= 8  # every text has one


def test_shares_of_masked_random_and_kept_tokens(base: Path) -> None:
    task, _ = made(base, task={"mask_share": 0.3, "random_share": 0.2, "unchanged_share": 0.1})
    ids = np.array([2] + [50] * 20_000 + [1])
    seen, predicted = task._mask(ids, np.random.default_rng(0))
    assert len(predicted) / 20_000 == pytest.approx(0.3, abs=0.015)
    assert np.array_equal(np.delete(seen, predicted), np.delete(ids, predicted))
    masked, kept = (seen[predicted] == task.mask_id).mean(), (seen[predicted] == 50).mean()
    assert masked == pytest.approx(0.7, abs=0.03) and kept == pytest.approx(0.1, abs=0.03)
    assert len(set(seen[predicted])) > 300  # random tokens are from all of the vocabulary
    everything = made(base, task={"random_share": 0, "unchanged_share": 0})[0]
    seen, predicted = everything._mask(ids, np.random.default_rng(0))
    assert set(seen[predicted]) == {everything.mask_id}
    assert everything._mask(np.array([2, 7]), np.random.default_rng(1))[1].tolist() == [1]
    assert everything._mask(np.array([2]), np.random.default_rng(1))[1].tolist() == []


@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_loss_and_gradients_are_those_of_every_text_alone(base: Path, kind: str) -> None:
    task, built = made(base, layout={"kind": kind})
    batch = next(task.batches())
    found = task.loss(built, batch)
    found.value.backward()
    gradients = {name: p.grad.clone() for name, p in built.trainable().items() if p.grad is not None}
    built.encoder.zero_grad()
    head = load_head(built.encoder.backbone, base)
    logits, targets = [], []
    for layout, before, wanted in zip(batch.layouts, batch.before, batch.targets, strict=True):
        tokens = layout.input_ids_RC.flatten()[layout.cells_T]
        documents = tokens.split(layout.lengths_N.tolist())
        starts = (layout.lengths_N.cumsum(0) - layout.lengths_N).tolist()
        for document, start in zip(documents, starts, strict=True):
            alone = lay_out([Tokens(document.tolist())], [[0]], len(document), 0)
            inside = (before >= start) & (before < start + len(document))
            logits.append(head.logits(built.encoder.backbone(alone))[before[inside] - start])
            targets.append(wanted[inside])
    expected = torch.nn.functional.cross_entropy(torch.cat(logits), torch.cat(targets))
    expected.backward()
    torch.testing.assert_close(found.value, expected, rtol=1e-5, atol=1e-6)
    assert len(gradients) > 10
    for name, parameter in built.trainable().items():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=2e-5)
    assert found.rows == 8 and found.tokens == sum(int(layout.lengths_N.sum()) for layout in batch.layouts)


def test_full_fine_tuning_trains_the_tied_matrix_from_both_ends(tmp_path: Path) -> None:
    base = write_tiny(tmp_path)
    model = schema.Model.model_validate({"base": str(base), "lora": None, "train": "full"})
    built = build(model, base, dtype=torch.float32)
    task = task_of(stage_of(), TrainingData(texts=TEXTS), built, base, seed=0)
    task.loss(built, next(task.batches())).value.backward()
    gradient = built.trainable()["backbone.model.embed_tokens.weight"].grad
    assert gradient is not None and (gradient.abs().sum(dim=1) > 0).all()  # softmax reaches every token of the matrix


def test_texts_come_from_rows_and_files_each_once(base: Path) -> None:
    built = build(schema.Model(base=str(base)), base, dtype=torch.float32)

    def texts(which: str) -> list[str]:
        loaded = TrainingData(rows=[*rows(), *rows()], texts=["plain"])
        task = task_of(stage_of(task={"texts": which}), loaded, built, base)
        return list(task.texts)

    queries, documents = [row.query for row in rows()], [row.pos[0].text for row in rows()]
    assert texts("queries") == ["plain", *queries]
    assert texts("documents") == ["plain", *documents]
    assert sorted(texts("all")) == sorted(["plain", *queries, *documents])


def test_what_cannot_be_trained_is_refused_by_its_key(base: Path) -> None:
    stages, tokenizer = [stage_of(), stage_of(task={"mask_token": "<nothing>"})], load_tokenizer(base, append_eos=False)
    with pytest.raises(
        InputError, match=r"^stages\.1\.task\.mask_token: the tokenizer has no token '<nothing>'; it has"
    ):
        check_mask_tokens(stages, tokenizer)
    check_mask_tokens(stages[:1], tokenizer)
    with pytest.raises(InputError, match=r"^stages\.2\.batch\.rows: 8 texts asked for, the data has 2"):
        check_data(2, stage_of(), TrainingData(texts=["a b", "c d", "a b"]))
    task, _ = made(base)
    with pytest.raises(InputError, match="nothing to predict"):
        next(replace(task, texts=[""] * 8).batches())
    with pytest.raises(ValueError, match="random_share and unchanged_share together"):
        stage_of(task={"random_share": 0.6, "unchanged_share": 0.6})
    with pytest.raises(ValueError, match="plain texts, contrast needs rows"):
        stage_of(task={"kind": "contrast"})


def test_fewer_hard_negatives_than_asked_for_are_counted() -> None:
    settings = {"data": [{"name": "r", "path": "r"}], "batch": {"rows": 4}, "budget": {"steps": 1}}
    stage = schema.Stage.model_validate(settings | {"task": {"hard_negatives": 2}})
    message = r"^stages\.0\.task\.hard_negatives: 2 asked for, 24 of 24 rows .* row 1 .*with 0"
    with pytest.raises(InputError, match=message):
        check_data(0, stage, TrainingData(rows=rows()))
