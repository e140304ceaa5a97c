"""The frozen base writes a text from its vector: against a slow loop over texts on a base of its own, in float64."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from float64_norms import use_float64_norms
from tiny_model import write_tiny
from tiny_run import make_stage, rows
from torch import Tensor
from torch.nn import functional

from gemma4vec.errors import InputError
from gemma4vec.model.adapters.fused_lora import fuse_lora
from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.backbone.lm_head import load_head
from gemma4vec.model.encoder.build import build
from gemma4vec.model.inverter.frozen_base import read_alone
from gemma4vec.model.packing.packed_batch import Tokens, pack
from gemma4vec.recipe import schema
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.training.loop import train_stage
from gemma4vec.training.preflight import check_base
from gemma4vec.training.stage import Stage
from gemma4vec.training.tasks.contrastive import ContrastTask
from gemma4vec.training.terms.reconstruct import Reconstruct

TERM = {"kind": "reconstruct", "prefix_tokens": 3, "text_tokens": 12}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


def written_stage(
    base: Path, out: Path, attention: str = "bidirectional", dtype: torch.dtype = torch.float64, **parts: Any
) -> Stage:
    """A stage whose adapters are no longer zero."""
    term = TERM | parts.pop("term", {})
    plain = make_stage(base, out, dtype=dtype, **parts)
    model = schema.Model.model_validate(
        {"base": str(base), "lora": {"rank": 4}, "max_tokens": 48, "attention": attention, "head": {"widths": [6]}}
    )
    built = build(model, base, dtype=dtype, seed=0)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in built.trainable().items():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    terms = [{"kind": "nce", "hardness": 0}, term]
    task = schema.Contrast.model_validate({"terms": terms, "temperature": 0.1})
    settings = plain.settings.model_copy(update={"task": task})
    backbone = built.encoder.backbone
    made = ContrastTask.make(
        settings, rows(), built, max_tokens=48, seed=0, head=lambda: load_head(backbone, base, "reconstruct")
    )
    return replace(plain, settings=settings, task=made, built=built)


def slow_loss(stage: Stage, base: Path, texts: list[str], vectors_ND: Tensor) -> Tensor:
    """One text at a time, on a causal base without adapters, all logits at once."""
    alone = load_backbone(base, causal=True, dtype=torch.float64).requires_grad_(False)
    task: Any = stage.task
    term: Reconstruct = task.objective.terms["reconstruct"]
    table: Tensor = alone.model.get_input_embeddings().weight
    total, count = vectors_ND.new_zeros(()), 0
    for text, vector_D in zip(texts, vectors_ND, strict=True):
        ids = term.tokenizer.hf_tokenizer(text, add_special_tokens=False)["input_ids"]
        most = term.settings.text_tokens
        targets = ids[:most] if len(ids) > most else [*ids, term.base.frame.end_id]
        opening = list(term.base.frame.opening)
        read = [*opening, 0, 0, 0, *targets[:-1]]
        inputs_TD = alone.input_states(torch.tensor(read)).clone()
        inputs_TD = torch.cat(
            [inputs_TD[: len(opening)], term.prefix(vector_D[None])[0], inputs_TD[len(opening) + 3 :]]
        )
        scale = alone.input_size**0.5 if alone.architecture.multiplies_input else 1.0
        states_TD = alone.model(inputs_embeds=(inputs_TD / scale)[None], use_cache=False).last_hidden_state[0]
        logits_MV = states_TD[len(opening) + 2 :] @ table.T
        total = total + functional.cross_entropy(logits_MV, torch.tensor(targets), reduction="sum")
        count += len(targets)
    return total / count


@pytest.mark.parametrize(
    ("attention", "texts", "layout"),
    [
        ("bidirectional", "queries", {}),
        ("causal", "documents", {"grad_cache": True}),
        ("bidirectional", "documents", {"gradient_checkpointing": True, "kind": "padded"}),
        ("bidirectional", "queries", {"fused": True}),
    ],
)
def test_value_and_every_gradient_are_those_of_a_slow_loop(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attention: str, texts: str, layout: dict[str, Any]
) -> None:
    use_float64_norms(monkeypatch)
    fused = "fused" in layout
    layout = {name: value for name, value in layout.items() if name != "fused"}
    layout = {"tokens_per_forward": 32} | layout
    stage = written_stage(
        base,
        tmp_path,
        attention,
        layout=layout,
        term={"texts": texts, "weight": 1.0, "text_tokens": 4 if texts == "documents" else 12},
    )
    task: Any = stage.task
    if layout.get("gradient_checkpointing"):
        stage.built.encoder.backbone.use_gradient_checkpointing()
    if fused:
        assert fuse_lora(stage.built.encoder.backbone)
    stage.built.encoder.train()
    batch = next(task.batches())
    own = batch.prepared["reconstruct"]
    assert len(own.texts.layouts) > 1
    loss = task.loss(stage.built, batch)
    nce = loss.terms["nce"]
    loss.value.backward()
    parameters = stage.built.trainable() | {name: extra.parameter for name, extra in task.extra_parameters().items()}
    assert {name for name in parameters if name.startswith("objective.")} == {
        f"objective.reconstruct.prefix.{part}" for part in ("enter.weight", "enter.bias", "leave.weight", "leave.bias")
    }
    found = {name: parameter.grad.clone() for name, parameter in parameters.items() if parameter.grad is not None}
    assert set(found) == set(parameters)
    for parameter in parameters.values():
        parameter.grad = None
    plain = replace(batch, grad_cache=False)
    n = plain.own_rows
    vectors = task._vectors(stage.built, plain)
    chosen = vectors[:n] if texts == "queries" else vectors[n : 2 * n]
    given = batch.texts.queries if texts == "queries" else [document.text for document in batch.texts.positives]
    slow = slow_loss(stage, base, given, chosen)
    assert loss.terms["reconstruct"].item() == pytest.approx(slow.item(), abs=1e-9)
    assert loss.value.item() == pytest.approx(nce.item() + slow.item(), abs=1e-9)
    queries, positives = vectors[:n], vectors[n : 2 * n]
    contrast = task.objective.terms["nce"]
    from gemma4vec.training.terms.base import TermBatch, Vectors

    whole = slow + contrast.value(TermBatch(Vectors(queries, positives, None, {}), batch.hashes))
    whole.backward()
    for name, parameter in parameters.items():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-9, name
        torch.testing.assert_close(found[name], parameter.grad, rtol=0, atol=1e-8, msg=name)


def test_the_base_reads_alone_as_it_was_loaded_and_adapters_come_back(base: Path, tmp_path: Path) -> None:
    stage = written_stage(base, tmp_path)
    backbone = stage.built.encoder.backbone
    (layout,) = pack([Tokens([2, *range(20, 60)])], 64, 64, 0)
    before = backbone(layout)
    wanted = load_backbone(base, causal=True, dtype=torch.float64)(layout)
    with read_alone(backbone):
        alone = backbone(layout)
        assert all(value.requires_grad for value in stage.built.trainable().values())
    torch.testing.assert_close(alone, wanted, rtol=0, atol=1e-12)
    assert (alone - before).abs().max() > 0.01
    assert torch.equal(backbone(layout), before) and not backbone.causal
    with pytest.raises(RuntimeError), read_alone(backbone):
        raise RuntimeError
    assert torch.equal(backbone(layout), before)


def test_training_lets_the_base_write_what_another_texts_vector_would_not(base: Path, tmp_path: Path) -> None:
    parts: dict[str, Any] = {"budget": {"steps": 40}, "term": {"weight": 1.0, "prefix_learning_rate": 0.01}}
    stage = written_stage(base, tmp_path, dtype=torch.float32, **parts)
    task: Any = stage.task
    train_stage(stage, seed=0)
    steps = stage.run.events("step")
    first, last = (steps[place]["terms"]["reconstruct"] for place in (0, -1))
    assert last < 0.8 * first
    batch = next(task.batches())
    term: Reconstruct = task.objective.terms["reconstruct"]
    stage.built.encoder.eval()
    with torch.no_grad():
        vectors = task._vectors(stage.built, batch)[: batch.own_rows]
        own = term.base.loss(batch.prepared["reconstruct"].texts, term.prefix(vectors))
        other = term.base.loss(batch.prepared["reconstruct"].texts, term.prefix(vectors.roll(1, 0)))
    assert not own.requires_grad and own.item() < other.item() - 0.02


def test_tokenized_texts_are_written_as_their_own_tokens(base: Path, tmp_path: Path) -> None:
    stage = written_stage(base, tmp_path)
    task: Any = stage.task
    term: Reconstruct = task.objective.terms["reconstruct"]
    (ids,) = term._read(["read the file"])
    frame = term.base.frame
    whole = PretokenizedText([*frame.opening, *ids, frame.end_id])
    prompted = PretokenizedText([*frame.opening, 40, 41, *ids], prompt=len(frame.opening) + 2)
    assert term._read([whole, "read the file", PretokenizedText(ids), prompted]) == [ids] * 4


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"lora": None, "train": "full"},
            r"^stages\.0\.task\.terms\.1: reconstruct: the frozen base writes the text, .*",
        ),
        ({"lora": None, "train": "frozen"}, None),
    ],
)
def test_only_a_frozen_decoder_can_write(base: Path, model: dict[str, Any], message: str | None) -> None:
    tree = {"name": "r", "model": {"base": str(base), "max_tokens": 48, "head": {"widths": [6]}} | model}
    tree["stages"] = [
        {
            "data": [{"name": "rows", "path": "rows.jsonl"}],
            "task": {"terms": [{"kind": "nce"}, TERM]},
            "budget": {"steps": 1},
        }
    ]
    recipe = schema.Recipe.model_validate(tree)
    if message is None:
        check_base(recipe, base)
        return
    with pytest.raises(InputError, match=message) as caught:
        check_base(recipe, base)
    assert "\n" not in str(caught.value)


def test_what_a_recipe_cannot_mean_is_refused() -> None:
    text = """
name: a
stages:
  - data: [{name: a, path: a.jsonl}]
    task: {terms: [{kind: nce}, {kind: reconstruct%s}]}
    budget: {steps: 1}
"""
    for more, complaint in (
        (", matryoshka: [8]", "soft tokens are made of whole vectors"),
        (", prefix_tokens: 0", r"prefix_tokens"),
        (", texts: positives", r"texts"),
        (", source_weights: {a: 1, b: 1}", "no source is named 'b'"),
    ):
        with pytest.raises(InputError, match=complaint):
            parse_recipe(text % more, "my.yaml")
    with pytest.raises(InputError, match="quantize: the term reconstruct reads the base as it is"):
        parse_recipe(text.replace("budget", "quantize: {scheme: q8_0}\n    budget") % "", "my.yaml")
    assert parse_recipe(text % "", "my.yaml").stages[0].task.terms[1].weight == 0.1  # type: ignore[union-attr]
