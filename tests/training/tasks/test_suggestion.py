"""Suggestion: pairs and their split, batches, the loss against the library's own model, held-out pairs, whole runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from float64_norms import use_float64_norms
from safetensors.torch import load_file
from tiny_model import write_tiny
from tiny_suggester import PAIRS, RECIPE, ROWS, make_suggestions, train_suggester, write_pairs
from transformers import AutoModelForCausalLM

from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.suggester.suggester_folder import read_suggester_facts
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import words_key
from gemma4vec.training.estimate.dry_run import estimate
from gemma4vec.training.preflight import check_base, check_stages
from gemma4vec.training.run import start_run, train_run
from gemma4vec.training.tasks import suggestion
from gemma4vec.training.tasks.make_task import load_stage_data
from gemma4vec.training.tasks.suggestion import SuggestionTask
from gemma4vec.training.writing.suggestion_pairs import SuggestionPair, check_split, pairs_of, split_pairs


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("gemma3"), "gemma3", layers=2)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_pairs(tmp_path_factory.mktemp("inputs"))


def test_a_pair_is_a_query_and_another_one() -> None:
    titled = Document("forgot my password", "Recovery\n\n Settings ")
    rows = [
        Row("reset password", [titled, Document("Reset, PASSWORD!"), Document("new password")], group="d1"),
        Row("Reset password", [Document("forgot my password.")]),
    ]
    assert pairs_of(rows) == [
        SuggestionPair("reset password", ("Recovery", "Settings"), "forgot my password", "d1"),
        SuggestionPair("reset password", (), "new password", "d1"),
    ]


def linked(pairs: list[SuggestionPair], start: int) -> set[int]:
    """Pairs that are linked to one by queries and documents, by walking from pair to pair."""
    found, todo = {start}, [start]
    while todo:
        one = pairs[todo.pop()]
        for number, other in enumerate(pairs):
            same = words_key(other.query) == words_key(one.query) or other.document == one.document is not None
            if same and number not in found:
                found.add(number)
                todo.append(number)
    return found


def test_no_query_and_no_document_stands_on_both_sides() -> None:
    drawn = np.random.default_rng(0).integers(0, 60, size=(200, 2))
    pairs = [
        SuggestionPair(f"query {a}", (), f"other {n}", f"d{b}" if b < 50 else None) for n, (a, b) in enumerate(drawn)
    ]
    few = [pair for pair in pairs if pair.document is None or int(pair.document[1:]) % 7 == 0]
    trained, kept = split_pairs(few, 100)
    assert kept and len(kept) <= len(few) // 10 and len(trained) + len(kept) == len(few)
    places = {few.index(pair) for pair in kept}
    for place in places:
        assert linked(few, place) <= places
    more, kept_of_more = split_pairs([*few, SuggestionPair("one more", (), "text", "elsewhere")], 100)
    assert len(more) + len(kept_of_more) == len(few) + 1
    assert split_pairs(few, 0) == (few, [])


def test_pairs_that_hang_together_cannot_be_held_out() -> None:
    pairs = [SuggestionPair(f"query {n}", (), f"other {n}", "the only document") for n in range(30)]
    with pytest.raises(InputError, match=r"s\.task\.held_out: no pair can be held out, since every query shares"):
        check_split(pairs, 5, 4, "s")
    check_split(pairs, 0, 4, "s")
    with pytest.raises(InputError, match=r"s\.batch\.rows: 31 pairs asked for, the data has 30"):
        check_split(pairs, 0, 31, "s")
    with pytest.raises(InputError, match=r"s\.data: no row has a query and another query"):
        check_split([], 0, 4, "s")


def test_a_batch_depends_on_seed_and_number_alone(base: Path) -> None:
    first, second = (make_suggestions(base, task={"sampled_vocabulary": 50})[0] for _ in range(2))
    one, other = first.batches(), second.batches(start=3)
    expected = [next(one) for _ in range(5)]
    for number in (3, 4):
        again, before = next(other), expected[number]
        assert again.texts == before.texts and again.sampled is not None and before.sampled is not None
        assert torch.equal(again.sampled.tokens_S, before.sampled.tokens_S)
        for a, b in zip([*again.targets, *again.places], [*before.targets, *before.places], strict=True):
            assert torch.equal(a, b)
        for a, b in zip(again.layouts, before.layouts, strict=True):
            assert torch.equal(a.input_ids_RC, b.input_ids_RC)


def lengths(task: SuggestionTask) -> list[int]:
    return sorted(int(length) for layout in next(task.batches()).layouts for length in layout.lengths_N)


def test_some_pairs_are_read_without_their_titles(base: Path) -> None:
    never, always, some = (
        lengths(make_suggestions(base, task={"plain_share": share}, batch={"rows": 40})[0]) for share in (0.0, 1.0, 0.5)
    )
    assert sum(always) < sum(some) < sum(never)
    bare = [pair._replace(titles=()) for pair in PAIRS]
    assert lengths(make_suggestions(base, pairs=bare, task={"plain_share": 0.0}, batch={"rows": 40})[0]) == always


@pytest.mark.parametrize(("architecture", "kind"), [("gemma3", "packed"), ("gemma3", "padded"), ("llama", "packed")])
def test_loss_and_gradient_are_the_librarys_of_every_pair_alone(
    architecture: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_float64_norms(monkeypatch)
    base = write_tiny(tmp_path, architecture, layers=2)
    pairs = [*PAIRS[:30], SuggestionPair("read " * 20, ("write " * 9, "", "sort", "open"), "close the list " * 9, "x")]
    settings = {"held_out": 0, "plain_share": 0.0}
    task, built = make_suggestions(base, pairs=pairs, layout={"kind": kind}, batch={"rows": 31}, task=settings)
    batch = next(task.batches())
    found = task.loss(built, batch)
    weight = built.encoder.backbone.model.get_input_embeddings().weight
    (gradient,) = torch.autograd.grad(found.value, [weight])
    whole: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    tokenizer, losses, cut = task.tokenizer.hf_tokenizer, [], 0

    def ids(text: str, limit: int = 99) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])[:limit]

    drawn = [task.trained[number] for number in next(task.draw()).numbers]
    for pair in drawn:
        before = [2, *ids("Query: "), *ids(" ".join(pair.query.split()), 10)]
        for title in [one for one in pair.titles if one.strip()][:2]:
            before += [*ids("\nTitle: "), *ids(" ".join(title.split()), 6)]
        before += ids("\nOther words: ")
        room = task.frame.text_tokens
        wanted = ids(pair.suggestion)
        cut += len(wanted) > room
        targets = wanted[:room] if len(wanted) > room else [*wanted, tokenizer.eos_token_id]
        logits = whole(torch.tensor([[*before, *targets[:-1]]]), use_cache=False).logits[0, len(before) - 1 :]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="none"))
    expected = torch.cat(losses).mean()
    assert cut == 1 and batch.predicted == len(torch.cat(losses))
    torch.testing.assert_close(found.value, expected, rtol=1e-8, atol=0)
    (theirs,) = torch.autograd.grad(expected, [whole.get_input_embeddings().weight])
    torch.testing.assert_close(gradient, theirs, rtol=1e-6, atol=1e-9)


def test_held_out_pairs_are_measured_with_titles_without_and_with_anothers(base: Path) -> None:
    task, built = make_suggestions(base)
    found = task.held_out(built)
    assert found is not None and list(found.parts) == ["own query", "without titles", "another query's"]
    total, count = 0.0, 0
    for pair in task.kept_pairs:
        ids = task.frame.read(task.tokenizer, [pair.suggestion])
        batch = task._lay_out(task.tokenizer, [pair], ids, task.stage.layout)
        total += float(task.loss(built, batch).value.detach()) * batch.predicted
        count += batch.predicted
    assert (found.texts, found.predicted) == (len(task.kept_pairs), count)
    assert found.value == pytest.approx(total / count, rel=1e-9) == found.parts["own query"]
    assert len(set(found.parts.values())) == 3 and built.encoder.training
    assert make_suggestions(base, task={"held_out": 0})[0].held_out(built) is None


def weights_of(run: RunFolder) -> dict[str, torch.Tensor]:
    (checkpoint,) = (run.checkpoints / "0-distill").glob("step-*")
    return load_file(checkpoint / "trained.safetensors")


def test_a_run_goes_on_after_a_kill_to_the_same_weights(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = parse_recipe(recipe, "r").model.base
    lora = f"model={{base: {base}, attention: causal, max_tokens: 64, dtype: bf16, lora: {{rank: 4, dropout: 0.2}}}}"
    changes = ["stages.0.budget.steps=4", lora]
    whole = train_suggester(recipe, tmp_path / "whole", *changes)
    stopped = start_run(parse_recipe(recipe, "r", changes), tmp_path / "stopped")
    calls: list[int] = []
    loss = SuggestionTask.loss

    def killed(self: SuggestionTask, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("killed")
        return loss(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(suggestion.SuggestionTask, "loss", killed)
        train_run(stopped)
    assert [event["step"] for event in stopped.events("step")] == [1, 2]
    train_run(stopped)
    expected, found = weights_of(whole), weights_of(stopped)
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    one, other = (run.model / "base" / "model.safetensors" for run in (whole, stopped))
    assert one.read_bytes() == other.read_bytes()


def test_a_folder_says_what_it_learned_from_and_makes_no_vectors(recipe: str, tmp_path: Path) -> None:
    run = train_suggester(recipe, tmp_path, "stages.0.budget.steps=1")
    facts = read_suggester_facts(run.model)
    queries = {words_key(row.query) for row in ROWS}
    assert set(facts.queries) | set(facts.held_out) == queries and not set(facts.queries) & set(facts.held_out)
    assert set(facts.documents) <= {row.group for row in ROWS} and facts.trained_pairs >= len(facts.queries)
    assert facts.made_from["model.base"]["weights"] and facts.reading.titles == 2 and facts.max_tokens == 64
    assert not [file for file in run.model.rglob("*") if file.suffix in {".pt", ".bin", ".pth", ".pkl"}]
    with pytest.raises(InputError, match=r"is a suggester, which makes no vectors; use: gemma4vec suggest"):
        Embedder.load(run.path)


def test_a_dry_run_estimates_it(recipe: str) -> None:
    stage = estimate(parse_recipe(recipe, "r")).stages[0]
    assert stage.tokens_per_step > 24 * 10 and stage.steps == 60 and stage.seconds_per_step > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.attention=bidirectional", "model.attention: suggestion writes token by token; set"),
        ("model.head={widths: [8]}", "model.head: suggestion trains a suggester, which has none; leave it out"),
        ("stages.0.evaluation.every_steps=1", "evaluation: a suggester makes no vectors to be evaluated"),
        ("stages.0.evaluation.snapshot_every_steps=1", "evaluation: nothing reads a suggester's weights"),
        ("stages.0.task.plain_share=2", "less than or equal to 1"),
        ("stages.0.data=[{name: t, source: text, path: t.txt}]", "source 't' has plain texts, suggestion needs pairs"),
    ],
)
def test_a_recipe_that_makes_no_sense(recipe: str, change: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_recipe(recipe, "r", [change])
    assert message in str(refused.value)


def test_a_suggester_is_the_only_stage() -> None:
    stage = RECIPE.split("stages:\n", 1)[1].replace("name: distill", "name: again")
    with pytest.raises(InputError, match=r"stages\.0\.task: suggestion makes a suggester, no model to go on with"):
        parse_recipe((RECIPE + stage).format(base="b", pairs="p"), "r")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.max_tokens=30", "model.max_tokens: 30 leaves 0 tokens for a suggestion after "),
        (
            "stages.0.batch.document_tokens=8",
            "stages.0.batch.document_tokens: 8 leaves 0 tokens for a suggestion",
        ),
        ("stages.0.batch.rows=500", "stages.0.batch.rows: 500 pairs asked for, the data has "),
    ],
)
def test_what_cannot_be_trained_is_one_line_before_weights(recipe: str, change: str, message: str) -> None:
    parsed = parse_recipe(recipe, "r", [change])
    with pytest.raises(InputError) as refused:
        outline = check_base(parsed, Path(parsed.model.base))
        check_stages(parsed, Path(parsed.model.base), [load_stage_data(stage) for stage in parsed.stages], outline)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)
