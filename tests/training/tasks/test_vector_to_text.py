"""Vector to text: batches, the loss against the library's own model, held-out texts, and whole runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from float64_norms import use_float64_norms
from safetensors.torch import load_file
from tiny_decoder import RECIPE, made, train_decoder, write_inputs
from tiny_model import TEXTS, write_tiny
from transformers import AutoModelForCausalLM

from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.inverter.decoder_folder import open_decoder, read_facts, stored_texts
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.report.content.training_log import read_training
from gemma4vec.text.text_hash import words_key
from gemma4vec.training.estimate.dry_run import estimate
from gemma4vec.training.preflight import check_base, check_stages
from gemma4vec.training.run import start_run, train_run
from gemma4vec.training.tasks import vector_to_text
from gemma4vec.training.tasks.make_task import load_stage_data
from gemma4vec.training.tasks.vector_to_text import VectorBatch, VectorToTextTask
from gemma4vec.training.writing.text_vectors import split_texts

LONG = "read the file and write the tree and sort the graph and close the list and open the data key"


@pytest.fixture(scope="module", params=["gemma3", "llama"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp(request.param), request.param, layers=2)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def contents(batch: VectorBatch) -> list[torch.Tensor]:
    parts = [*(layout.input_ids_RC for layout in batch.layouts), *batch.vectors, *batch.targets]
    return parts if batch.sampled is None else [*parts, batch.sampled.tokens_S]


def test_a_batch_depends_on_seed_and_number_alone(base: Path) -> None:
    first, second = (made(base, task={"sampled_vocabulary": 50})[0] for _ in range(2))
    one, other = first.batches(), second.batches(start=3)
    expected = [next(one) for _ in range(5)]
    for number in (3, 4):
        again = next(other)
        pairs = zip(contents(again), contents(expected[number]), strict=True)
        assert again.texts == expected[number].texts and all(torch.equal(a, b) for a, b in pairs)
    changed = next(made(base, seed=1, task={"sampled_vocabulary": 50})[0].batches())
    assert changed.texts != expected[0].texts


@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_loss_and_gradients_are_the_librarys_of_every_text_alone(
    base: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_float64_norms(monkeypatch)
    task, built = made(base, texts=[*TEXTS[:40], LONG], layout={"kind": kind}, batch={"rows": 41}, task={"held_out": 0})
    batch = next(task.batches())
    found = task.loss(built, batch)
    wanted = {
        "prefix": task.prefix.enter.weight,
        "embedding": built.encoder.backbone.model.get_input_embeddings().weight,
    }
    gradients = dict(zip(wanted, torch.autograd.grad(found.value, list(wanted.values())), strict=True))
    whole: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    losses, tokenizer = [], task.tokenizer.hf_tokenizer
    own = whole.get_input_embeddings().weight
    scale = 32**0.5 if whole.config.model_type == "gemma3_text" else 1.0
    several, cut = False, 0
    for layout, vectors in zip(batch.layouts, batch.vectors, strict=True):
        several = several or len(layout.documents) > layout.input_ids_RC.shape[0]
        for document, vector in zip(layout.documents, vectors, strict=True):
            soft = task.prefix(vector[None].double())
            ids = tokenizer(batch.texts.texts[document], add_special_tokens=False)["input_ids"]
            targets = [*ids, tokenizer.eos_token_id]
            if len(ids) > 20:  # max_tokens 24, less BOS and three soft tokens
                cut, targets = cut + 1, ids[:20]
            read = torch.tensor([[2, *targets[:-1]]])
            embedded = own[read] * scale
            inputs = torch.cat([embedded[:, :1], soft, embedded[:, 1:]], dim=1)
            logits = whole(inputs_embeds=inputs, use_cache=False).logits[0, 3:]
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="none"))
    expected = torch.cat(losses).mean()
    assert several == (kind == "packed") and cut == 1 and batch.predicted == len(torch.cat(losses))
    torch.testing.assert_close(found.value, expected, rtol=1e-8, atol=0)
    theirs = torch.autograd.grad(expected, [task.prefix.enter.weight, own])
    torch.testing.assert_close(gradients["prefix"], theirs[0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradients["embedding"], theirs[1], rtol=1e-6, atol=1e-9)


def test_with_every_token_drawn_the_loss_is_that_of_the_whole_vocabulary(base: Path) -> None:
    whole, built = made(base)
    sampled = made(base, task={"sampled_vocabulary": 399})[0]
    few = made(base, task={"sampled_vocabulary": 30})[0]
    assert sampled.probabilities_V is not None and sampled.probabilities_V.sum() == pytest.approx(399)
    object.__setattr__(sampled, "probabilities_V", np.ones(400))
    expected, found, part = (task.loss(built, next(task.batches())).value for task in (whole, sampled, few))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert not torch.allclose(part, expected, rtol=1e-4)
    batch = next(few.batches())
    assert batch.sampled is not None and 20 < len(batch.sampled.tokens_S) < 90


def test_vectors_are_moved_by_no_more_than_the_recipe_says(base: Path) -> None:
    task = made(base, task={"noise_degrees": 5, "mix_share": 0.5})[0]
    vectors = task.vectors_Nd[:200]
    moved = task.move(vectors, np.random.default_rng(0))
    degrees = np.rad2deg(np.arccos(np.clip((vectors * moved).sum(axis=1), -1, 1)))
    assert np.allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
    turned = degrees <= 5.01
    assert 0.4 < turned.mean() < 0.65
    towards = np.roll(vectors, -1, axis=0)
    far = np.rad2deg(np.arccos(np.clip((towards * moved).sum(axis=1), -1, 1)))
    assert (degrees[~turned] < far[~turned] + 10.1).all()  # the text of a mixture is the nearer one's
    still = made(base, task={"noise_degrees": 0, "mix_share": 0})[0]
    assert np.allclose(still.move(vectors, np.random.default_rng(0)), vectors, atol=1e-7)


def test_held_out_texts_are_those_of_their_hash_and_no_case_or_point_brings_them_back() -> None:
    trained, kept = split_texts(TEXTS, 30)
    again = [f"  {text.upper()}! " for text in TEXTS]
    more, kept_of_more = split_texts(["", "  ", *again, *TEXTS, "one more text"], 30)
    keys = {words_key(text) for text in kept}
    assert len(kept) == 30 == len(keys) and not keys & {words_key(text) for text in trained}
    assert len(trained) + 30 == len({words_key(text) for text in TEXTS})
    assert not keys & {words_key(text) for text in more} or {words_key(text) for text in kept_of_more} != keys
    assert len({words_key(text) for text in kept_of_more} & keys) >= 29  # one more text may be held out instead
    assert not {words_key(text) for text in kept_of_more} & {words_key(text) for text in more}
    assert len(split_texts(TEXTS, 10**6)[1]) == len({words_key(text) for text in TEXTS}) // 10


def test_the_held_out_loss_is_the_mean_over_tokens_and_has_its_shuffled_twin(base: Path) -> None:
    task, built = made(base, task={"sampled_vocabulary": 40})
    found = task.held_out(built)
    assert found is not None and found.texts == 20
    total, count = 0.0, 0
    for text, vector in zip(task.kept, task.kept_vectors, strict=True):
        batch = task._lay_out(task.frame.read(task.tokenizer, [text]), vector[None], task.stage.layout)
        total += float(task.loss(built, batch).value) * batch.predicted
        count += batch.predicted
    assert found.predicted == count and found.value == pytest.approx(total / count, rel=1e-9)
    assert found.parts["own vectors"] == found.value != found.parts["another text's"]
    assert built.encoder.training


def weights_of(run: RunFolder) -> dict[str, torch.Tensor]:
    (checkpoint,) = (run.checkpoints / "0-invert").glob("step-*")
    return load_file(checkpoint / "trained.safetensors")


def test_a_run_goes_on_after_a_kill_to_the_same_weights(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = parse_recipe(recipe, "r").model.base
    lora = f"model={{base: {base}, attention: causal, max_tokens: 24, dtype: bf16, lora: {{rank: 4, dropout: 0.2}}}}"
    changes = ["stages.0.budget.steps=5", lora]
    whole = train_decoder(recipe, tmp_path / "whole", *changes)
    stopped = start_run(parse_recipe(recipe, "r", changes), tmp_path / "stopped")
    calls: list[int] = []
    loss = VectorToTextTask.loss

    def killed(self: VectorToTextTask, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("killed")
        return loss(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(vector_to_text.VectorToTextTask, "loss", killed)
        train_run(stopped)
    assert [event["step"] for event in stopped.events("step")] == [1, 2]
    train_run(stopped)
    expected, found = weights_of(whole), weights_of(stopped)
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    assert sum(name.startswith("objective.prefix.") for name in found) == 4
    held = read_training(stopped.events()).held_out
    assert [(one.step, one.texts) for one in held] == [(0, 40), (5, 40)]
    one, other = (run.model / "base" / "model.safetensors" for run in (whole, stopped))
    assert one.read_bytes() == other.read_bytes()


def test_a_decoder_learns_and_its_folder_says_whose_it_is(recipe: str, tmp_path: Path) -> None:
    run = train_decoder(recipe, tmp_path)
    before, after = (event["parts"] for event in run.events("held_out"))
    assert after["own vectors"] < 1.1 < after["another text's"] and before["own vectors"] > 5
    facts = read_facts(run.model)
    assert (facts.role, facts.dimension, facts.prefix_tokens, facts.text_tokens) == ("query", 32, 4, 19)
    assert facts.made_from["stages.0.task.embedder"]["weights"] and facts.made_from["model.base"]["weights"]
    texts, vectors = stored_texts(run.model, facts)
    hashes = {words_key(text) for text in texts}
    assert len(texts) == facts.stored_texts == facts.trained_texts and not hashes & set(facts.held_out)
    assert len(facts.held_out) == 40
    # Texts are embedded as the encoder opens by itself: in bf16 where the processor has it.
    encoder = Embedder.load(parse_recipe(recipe, "r").stages[0].task.embedder)  # type: ignore[union-attr]
    exact = encoder.encoder.backbone.dtype == torch.float32
    np.testing.assert_allclose(vectors, encoder.encode_query(texts), atol=1e-3 if exact else 1e-2)
    opened = open_decoder(run.model, dtype=torch.float32, device="cpu")
    saved = weights_of(run)
    torch.testing.assert_close(opened.prefix.enter.weight.data, saved["objective.prefix.enter.weight"])
    assert float(opened.prefix.size) > 0.1
    name = "backbone.model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(opened.backbone.model.layers[0].mlp.up_proj.weight.data, saved[name])
    forbidden = [file for file in run.model.rglob("*") if file.suffix in {".pt", ".bin", ".pth", ".pkl"}]
    assert not forbidden
    with pytest.raises(InputError, match=r"is a decoder, which makes no vectors; use: gemma4vec invert MODEL"):
        Embedder.load(run.path)


def test_no_texts_are_stored_where_the_recipe_says_so(recipe: str, tmp_path: Path) -> None:
    changes = ["stages.0.budget.steps=1", "stages.0.task.keep_texts=0", "stages.0.task.held_out=0"]
    run = train_decoder(recipe, tmp_path, *changes)
    facts = read_facts(run.model)
    assert facts.stored_texts == 0 < facts.trained_texts and not facts.held_out and not run.events("held_out")
    assert stored_texts(run.model, facts)[0] == [] and not (run.model / "vectors.npy").exists()
    assert json.loads((run.model / "decoder.json").read_text())["format"] == 1


def test_a_dry_run_embeds_nothing(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Embedder, "load", lambda *_, **__: pytest.fail("opened"))
    stage = estimate(parse_recipe(recipe, "r")).stages[0]
    assert stage.tokens_per_step > 32 * 8 and stage.steps == 120 and stage.seconds_per_step > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.attention=bidirectional", "model.attention: vector_to_text writes token by token; set"),
        ("model.head={widths: [8]}", "model.head: vector_to_text trains a decoder, which has none; leave it out"),
        ("model.readout=last_token", "model.readout: vector_to_text trains a decoder, which has none"),
        ("stages.0.evaluation.every_steps=1", "evaluation: a decoder makes no vectors to be evaluated"),
        ("stages.0.evaluation={background: true, snapshot_at_shares: [1.0]}", "evaluation: a decoder makes no vectors"),
        ("stages.0.task.noise_degrees=90", "less than 90"),
        ("stages.0.task.prefix_tokens=0", "greater than or equal to 1"),
        ("stages.0.task.role=both", "'query' or 'document'"),
        ("stages.0.layout.grad_cache=true", "vector_to_text has no softmax over rows"),
        ("stages.0.quantize={scheme: q8_0}", "quantize: it is for contrast"),
    ],
)
def test_a_recipe_that_makes_no_sense(recipe: str, change: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_recipe(recipe, "r", [change])
    assert message in str(refused.value)


def test_a_decoder_is_the_only_stage() -> None:
    stage = RECIPE.split("stages:\n", 1)[1].replace("name: invert", "name: again")
    with pytest.raises(InputError, match=r"stages\.0\.task: vector_to_text makes a decoder, no model to go on with"):
        parse_recipe((RECIPE + stage).format(base="b", texts="t", encoder="e"), "r")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.base=ENCODER", "model.attention: 't5gemma2_text' is an encoder, which is always bidirectional"),
        ("model.max_tokens=8", "model.max_tokens: 8 leaves 3 tokens for a text after 4 soft tokens; give at least 9"),
        (
            "stages.0.batch.document_tokens=8",
            "stages.0.batch.document_tokens: 8 leaves 3 tokens for a text after 4 soft",
        ),
        ("stages.0.task.embedder=nothing/here", "stages.0.task.embedder: "),
        ("stages.0.batch.rows=500", "stages.0.batch.rows: 500 texts asked for, the data has"),
    ],
)
def test_what_cannot_be_trained_is_one_line_before_weights(
    recipe: str, change: str, message: str, tmp_path: Path
) -> None:
    if "ENCODER" in change:
        change = change.replace("ENCODER", str(write_tiny(tmp_path / "encoder", "t5gemma2")))
    parsed = parse_recipe(recipe, "r", [change])
    with pytest.raises(InputError) as refused:
        outline = check_base(parsed, Path(parsed.model.base))
        check_stages(parsed, Path(parsed.model.base), [load_stage_data(stage) for stage in parsed.stages], outline)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)
