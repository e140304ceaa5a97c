"""Denoising: batches, the loss against the library's encoder-decoder, held-out texts, and whole runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from float64_norms import use_float64_norms
from safetensors.torch import load_file
from t5gemma2_pair import LibraryPair, library_name
from tiny_model import TEXTS, write_tiny
from traced import trace_only

from gemma4vec.cli.dry_run import as_text, show_dry_run
from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.backbone.lm_head import load_head
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe import schema
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.report.content.training_log import read_training
from gemma4vec.training.batches.text_batches import hold_out
from gemma4vec.training.estimate.dry_run import estimate
from gemma4vec.training.preflight import check_base, check_stages
from gemma4vec.training.run import start_run, train_run
from gemma4vec.training.tasks import ul2
from gemma4vec.training.tasks.make_task import load_stage_data, make_task
from gemma4vec.training.tasks.ul2 import DenoisingBatch, Ul2Task

# Bytes that no text has; the tiny vocabulary has a token for each.
SENTINELS = [chr(256 + number) for number in range(32)]
MIX = [{"span": 2, "share": 0.3}, {"span": 4, "share": 0.5}, {"prefix": 0.25, "weight": 2}]
RECIPE = """
name: denoising
model: {{base: {base}, dtype: bf16, max_tokens: 48, lora: null, train: full, train_embeddings: false}}
stages:
  - name: adapt
    data: [{{name: texts, source: text, path: {texts}}}]
    task: {{kind: ul2, sentinels: {sentinels}, held_out: 8}}
    batch: {{rows: 8}}
    layout: {{row_tokens: 32, tokens_per_forward: 128, compile: false}}
    optimizer: {{learning_rate: 0.003, warmup_steps: 0, schedule: constant}}
    budget: {{steps: 4}}
    evaluation: {{checkpoint_seconds: 0}}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


def stage_of(**parts: Any) -> schema.Stage:
    return schema.Stage.model_validate(
        {
            "data": [{"name": "t", "source": "text", "path": "t.txt"}],
            "task": {"kind": "ul2", "sentinels": SENTINELS, "mix": MIX, "held_out": 16} | parts.get("task", {}),
            "batch": {"rows": 8} | parts.get("batch", {}),
            "layout": {"row_tokens": 32, "tokens_per_forward": 64, "compile": False} | parts.get("layout", {}),
            "budget": {"steps": 1},
        }
    )


def made(
    base: Path, dtype: torch.dtype = torch.float32, seed: int = 0, texts: list[str] = TEXTS, **parts: Any
) -> tuple[Ul2Task, EmbeddingModel]:
    model = {"base": str(base), "lora": None, "train": "full"} | parts.get("model", {})
    built = build(schema.Model.model_validate(model), base, dtype=dtype)
    task = make_task(
        stage_of(**parts),
        TrainingData(texts=texts),
        built,
        lambda: load_head(built.encoder.backbone, base, "ul2"),
        max_tokens=48,
        seed=seed,
    )
    assert isinstance(task, Ul2Task)
    return task, built


def by_document(batch: DenoisingBatch) -> dict[int, tuple[list[int], list[int], list[int]]]:
    """What the encoder reads, what the decoder reads, and the targets of each text."""
    found: dict[int, list[list[int]]] = {}
    targets = [target for one in batch.targets for target in [one]]
    for layouts in batch.groups:
        for layout in layouts:
            ids_T = layout.input_ids_RC.flatten()[layout.cells_T]
            for document, ids in zip(layout.documents, ids_T.split(layout.lengths_N.tolist()), strict=True):
                found.setdefault(document, []).append(ids.tolist())
    for layout, target in zip(batch.decoder, targets, strict=True):
        tokens = layout.tokens
        for document, ids in zip(tokens.documents, target.split(tokens.lengths_N.tolist()), strict=True):
            found[document].append(ids.tolist())
    return {number: (one[0], one[1], one[2]) for number, one in found.items()}


def test_a_batch_depends_on_seed_and_number_alone(base: Path) -> None:
    first, second = made(base)[0], made(base)[0]
    one, other = first.batches(), second.batches(start=3)
    expected = [next(one) for _ in range(5)]
    for number in (3, 4):
        again = next(other)
        assert by_document(again) == by_document(expected[number]) and again.texts == expected[number].texts
    assert by_document(next(made(base, seed=1)[0].batches())) != by_document(expected[0])


@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_every_token_of_a_text_is_read_or_restored_once(base: Path, kind: str) -> None:
    task, _ = made(base, layout={"kind": kind})
    batch = next(task.batches())
    marks = set(task.markers.sentinels)
    whole = [task.tokenizer.hf_tokenizer(text)["input_ids"] for text in batch.texts.texts]
    for number, (read, written, target) in by_document(batch).items():
        assert sorted([t for t in [*read, *target[:-1]] if t not in marks]) == sorted(whole[number])
        assert read[0] == written[0] == 2 and target[-1] == 1 and written[1:] == target[:-1]
    assert batch.predicted == sum(map(len, batch.targets)) and batch.rows == 8 and batch.too_short == 0
    several = any(len(one.tokens.documents) > one.tokens.input_ids_RC.shape[0] for one in batch.decoder)
    assert several == (kind == "packed")


@pytest.mark.parametrize("kind", ["packed", "padded"])
@pytest.mark.parametrize("decoder", [{}, {"layers": 1}, {"lora": {"rank": 2}}, {"shared": True}])
def test_loss_and_gradients_are_the_librarys_of_every_text_alone(
    base: Path, kind: str, decoder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_float64_norms(monkeypatch)
    task, built = made(base, torch.float64, layout={"kind": kind}, task={"decoder": decoder})
    batch = next(task.batches())
    found = task.loss(built, batch)
    found.value.backward()
    library = LibraryPair(built.encoder.backbone, task.decoder)
    head = library.encoder.embed_tokens.weight
    states, targets = [], []
    for read, written, target in by_document(batch).values():
        states.append(library(read, written))
        targets += target
    expected = torch.nn.functional.cross_entropy(torch.cat(states) @ head.T, torch.tensor(targets))
    expected.backward()
    torch.testing.assert_close(found.value, expected, rtol=1e-10, atol=1e-10)
    theirs = {name: parameter.grad for name, parameter in library.encoder.named_parameters()}
    decoders = {name: parameter.grad for name, parameter in library.decoder.named_parameters()}
    for name, parameter in built.encoder.backbone.model.named_parameters():
        gradient = theirs[library_name(name)]
        if "shared" in decoder and "embed" not in name:  # one set of weights does the work of two
            gradient = gradient + decoders[library_name(name)]
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-9, msg=name)
    for name, parameter in task.decoder.own.items():
        if "lora_" not in name:
            torch.testing.assert_close(parameter.grad, decoders[library_name(name)], rtol=0, atol=1e-9, msg=name)
    assert found.tokens == sum(len(read) + len(written) for read, written, _ in by_document(batch).values())


def test_gradients_of_adapters_are_those_of_the_merged_weight(base: Path) -> None:
    """dL/dB = s dL/dW A^T, for the weight that both sides share where both are frozen."""
    task, built = made(base, torch.float64, task={"decoder": {"lora": {"rank": 2, "alpha": 4}}})
    batch = next(task.batches())
    task.loss(built, batch).value.backward()
    layer = task.decoder.layers[0].layer.mlp.down_proj
    weight = layer.base_layer.weight
    weight.requires_grad_(True)
    task.loss(built, batch).value.backward()
    expected = 2.0 * weight.grad @ layer.lora_A["default"].weight.T
    torch.testing.assert_close(layer.lora_B["default"].weight.grad / 2, expected, rtol=1e-9, atol=1e-12)


def test_short_texts_are_counted_and_left_out(base: Path) -> None:
    task, built = made(base)
    batch = next(replace(task, texts=["a", "", *TEXTS[:6]]).batches())
    assert batch.too_short == 2 and batch.rows == 6
    found = task.loss(built, batch)
    assert found.rows == 6 and int(found.noted["too_short"]) == 2 and torch.isfinite(found.value)
    with pytest.raises(InputError, match=r"^data: a batch has 0 texts of 2 tokens or more, so nothing can be hidden"):
        next(replace(task, texts=["a", ""] * 4).batches())


def test_held_out_texts_are_a_tenth_at_most_and_the_same_for_every_seed(base: Path) -> None:
    trained, kept = hold_out(TEXTS, 16)
    assert len(kept) == 16 and sorted([*trained, *kept]) == sorted(TEXTS) and hold_out(TEXTS, 16)[1][:] == kept[:]
    assert len(hold_out(TEXTS[:30], 16)[1]) == 3 and hold_out(TEXTS[:5], 16) == (TEXTS[:5], [])
    task, other = made(base)[0], made(base, seed=1)[0]
    assert list(task.kept) == list(other.kept) == list(kept)
    drawn = [text for _, batch in zip(range(67), task.batches(), strict=False) for text in batch.texts.texts]
    assert not set(drawn) & set(kept) and set(drawn) == set(trained)


def test_the_held_out_loss_is_the_mean_over_tokens(base: Path) -> None:
    task, built = made(base, model={"lora": {"rank": 2, "dropout": 0.5}, "train": "frozen"})
    built.encoder.train()
    before = torch.get_rng_state()
    found, again = task.held_out(built), task.held_out(built)
    assert found == again and found is not None and found.texts == 16 and built.encoder.training
    assert torch.equal(before, torch.get_rng_state())
    built.encoder.eval()
    pairs = task._corrupt(list(task.kept), np.random.default_rng(0))
    total, parts = 0.0, dict.fromkeys(found.parts, (0.0, 0))
    for pair in pairs:
        one = DenoisingBatch(*task._lay_out([pair], task.stage.layout), 1, len(pair[0].target), 0, None)  # type: ignore[arg-type]
        loss = float(task.loss(built, one).value.detach()) * len(pair[0].target)
        label = task.settings.mix[pair[1]].label
        total, (before_sum, before_count) = total + loss, parts[label]
        parts[label] = (before_sum + loss, before_count + len(pair[0].target))
    assert found.predicted == sum(len(text.target) for text, _ in pairs)
    assert found.value == pytest.approx(total / found.predicted, rel=1e-5)
    assert found.parts == pytest.approx({name: value / count for name, (value, count) in parts.items()}, rel=1e-5)
    assert list(found.parts) == ["2 x 30%", "4 x 50%", "prefix 25%"]
    assert made(base, task={"held_out": 0})[0].held_out(built) is None


@pytest.mark.slow
def test_memory_is_planned_and_the_decoder_compiled_with_the_encoder(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_only(monkeypatch)
    task, built = made(base, texts=TEXTS[:40])
    plain = task.plan_memory(built)
    assert not task.decoder.compiled and plain.remark == "" and plain.fields() == {}
    expected = float(task.loss(built, next(task.batches())).value)
    built.encoder.backbone.compile_layers()
    task.plan_memory(built)
    assert task.decoder.compiled and all(
        p.grad is None for p in [*built.trainable().values(), *task.decoder.own.values()]
    )
    assert float(task.loss(built, next(task.batches())).value) == pytest.approx(expected, rel=1e-4)
    built.encoder.backbone.uncompile_layers()  # as the loop does where the compiler gives up
    assert float(task.loss(built, next(task.batches())).value) == pytest.approx(expected, rel=1e-5)
    assert not task.decoder.compiled
    torch.compiler.reset()


# whole runs


@pytest.fixture(scope="module")
def recipe(base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    texts = tmp_path_factory.mktemp("texts") / "texts.txt"
    texts.write_text("\n\n".join(TEXTS[:120]) + "\n")
    return RECIPE.format(base=base, texts=texts, sentinels=json.dumps(SENTINELS))


def weights_of(run: RunFolder) -> dict[str, torch.Tensor]:
    (checkpoint,) = (run.checkpoints / "0-adapt").glob("step-*")
    return load_file(checkpoint / "trained.safetensors")


def test_a_run_learns_goes_on_after_a_kill_and_saves_an_ordinary_model(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = ["stages.0.task.decoder={lora: {rank: 4, dropout: 0.2}, learning_rate: 0.01}"]
    whole = start_run(parse_recipe(recipe, "r", lora), tmp_path / "whole")
    train_run(whole)
    stopped = start_run(parse_recipe(recipe, "r", lora), tmp_path / "stopped")
    calls: list[int] = []
    loss = Ul2Task.loss

    def killed(self: Ul2Task, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:  # the first one plans memory
            raise RuntimeError("killed")
        return loss(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(ul2.Ul2Task, "loss", killed)
        train_run(stopped)
    assert [event["step"] for event in stopped.events("step")] == [1, 2]
    model = train_run(stopped)
    expected, found = weights_of(whole), weights_of(stopped)
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    assert sum(name.startswith("objective.decoder.") for name in found) == 2 * 7 * 2
    for run in (whole, stopped):
        held = read_training(run.events()).held_out
        assert [(one.step, one.texts) for one in held] == [(0, 8), (4, 8)] and held[1].value < held[0].value - 0.1
    saved = load_file(model / "model.safetensors")
    assert not any("decoder" in name for name in saved)
    vectors = Embedder.load(model, dtype="fp32").encode_query(["read the file", "sort the tree"])
    assert vectors.shape == (2, 32) and abs(float(vectors[0] @ vectors[1])) < 0.99999
    config = json.loads((model / "config.json").read_text())
    assert config["model_type"] == "gemma3_text" and config["use_bidirectional_attention"]


def test_the_next_stage_trains_the_encoder_alone(recipe: str, tmp_path: Path) -> None:
    second = """
  - name: again
    data: [{{name: texts, source: text, path: {0}}}]
    task: {{kind: masked_next_token}}
    batch: {{rows: 8}}
    layout: {{row_tokens: 32, tokens_per_forward: 128, compile: false}}
    budget: {{steps: 1}}
"""
    path = parse_recipe(recipe, "r").stages[0].data[0].path
    run = start_run(parse_recipe(recipe + second.format(path), "r", ["stages.0.budget.steps=1"]), tmp_path)
    train_run(run)
    (checkpoint,) = (run.checkpoints / "1-again").glob("step-*")
    later = load_file(checkpoint / "trained.safetensors")
    assert later.keys() == {name for name in weights_of(run) if not name.startswith("objective.")}


def test_a_dry_run_names_the_decoder_and_its_memory(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    parsed = parse_recipe(recipe, "r")
    show_dry_run(parsed, as_json=True)
    found = json.loads(capsys.readouterr().out)
    (stage,) = found["stages"]
    base = parse_recipe(recipe, "r").model
    built = build(base, base.base, dtype=torch.bfloat16)
    task = ul2.Decoder(built.encoder.backbone, schema.Ul2().decoder)
    count = sum(parameter.numel() for parameter in task.own.values())
    assert stage["decoder"]["parameters"] == stage["decoder"]["trainable"] == count
    # Weights and gradients in bf16; an fp32 copy and two moments.
    assert stage["decoder"]["memory_gb"] == pytest.approx(count * (2 + 2 + 12) / 1e9)
    trained = found["parameters"]["trainable"] + count
    assert found["writes_gb"]["checkpoints"] == pytest.approx(12 * trained / 1e9)
    assert any(line.startswith("  decoder     ") for line in as_text(found).splitlines())
    shared, last = (
        estimate(parse_recipe(recipe, "r", [f"stages.0.task.decoder={how}"])).stages[0]
        for how in ("{shared: true}", "{layers: 1}")
    )
    assert (
        shared.parameters.total.get("decoder", 0) == 0
        and shared.memory.optimizer < stage["memory_gb"]["optimizer"] * 1e9
    )
    assert 0.4 < last.parameters.total["decoder"] / count < 0.6 and last.flops.total < stage["flops_per_step"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.attention=causal", "stages.0.task: ul2 teaches bidirectional attention, model.attention is causal"),
        ("stages.0.layout.grad_cache=true", "layout.grad_cache=true is for contrast, ul2 has no softmax over rows"),
        ("stages.0.batch.tokenize=once", "batch.tokenize: once is for contrast; ul2 reads its texts each time"),
        ("stages.0.task.mix=[]", "the list is empty, so nothing would be hidden"),
        ("stages.0.task.mix=[{span: 3, share: 1.0}]", "less than 1"),
        ("stages.0.task.mix=[{span: 0.5, share: 0.5}]", "greater than or equal to 1"),
        ("stages.0.task.mix=[{prefix: 0}]", "greater than 0"),
        ("stages.0.task.mix=[{prefix: 0.5, share: 0.5}]", "prefix hides one span"),
        ("stages.0.task.mix=[{span: 3}]", "a denoiser has span and share, or prefix"),
        ("stages.0.task.mix=[{prefix: 0.5}, {prefix: 0.5, weight: 2}]", "two denoisers are 'prefix 50%'"),
        ("stages.0.task.mix=t5", "there is no mixture 't5'; there are t5gemma2, ul2, ul2r"),
        ("stages.0.task.sentinels=<unused>", "has no single {} for a number"),
        ("stages.0.task.sentinels=[a, a]", "a token is named more than once"),
        ("stages.0.task.decoder={shared: true, lora: {}}", "shared: the encoder's layers are trained by"),
        ("stages.0.task.decoder={layers: 0}", "layers: 0 layers cannot restore a token"),
    ],
)
def test_a_recipe_that_makes_no_sense(recipe: str, change: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_recipe(recipe, "r", [change])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "stages.0.task.sentinels='<unused{}>'",
            "stages.0.task.sentinels: the vocabulary has 0 of the 2 sentinels that",
        ),
        ("stages.0.task.sentinels=[a]", "stages.0.task.sentinels: the vocabulary has 1 of the 2 sentinels"),
        ("stages.0.task.sentinels=[a, zz9]", "stages.0.task.sentinels: the vocabulary has no token 'zz9'"),
        ("stages.0.task.decoder.layers=3", "stages.0.task: decoder.layers: 3 requested, the base has 2 layers"),
        ("model.base=GEMMA4", "stages.0.task: ul2 is verified for Gemma 3 alone, the base is a 'gemma4_text'"),
        ("model.base=ENCODER", "model.base: ul2 turns decoders into encoders, and this base is already an encoder"),
        ("stages.0.batch.rows=113", "stages.0.batch.rows: 113 texts asked for, the data has"),
        ("stages.0.data.0.path=SHORT", "stages.0.data: none of the 12 texts has 2 tokens or more"),
    ],
)
def test_what_cannot_be_trained_is_one_line_before_weights(
    recipe: str, change: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("\n\n".join("abcdefghijkl") + "\n")
    for name, architecture in (("GEMMA4", "gemma4_text"), ("ENCODER", "t5gemma2")):
        if name in change:
            change = change.replace(name, str(write_tiny(tmp_path / name, architecture)))
    changes = [change.replace("SHORT", str(tmp_path / "short.txt"))]
    parsed = parse_recipe(recipe, "r", [*changes, *(["stages.0.batch.rows=4"] if "SHORT" in change else [])])
    with pytest.raises(InputError) as refused:
        outline = check_base(parsed, Path(parsed.model.base))
        data = [load_stage_data(stage) for stage in parsed.stages]
        check_stages(parsed, Path(parsed.model.base), data, outline)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)
