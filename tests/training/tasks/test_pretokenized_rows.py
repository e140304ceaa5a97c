"""Rows that are tokenised once train as their texts do; another tokenizer, prompt, limit or text makes new ones."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import write_tiny

from gemma4vec.cli.main import execute
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import find_run
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.recipe import schema
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document, Prompted
from gemma4vec.training.preflight import check_given_tokens
from gemma4vec.training.tasks.contrastive import ContrastTask
from gemma4vec.training.tasks.make_task import make_task

ROWS = [
    Row(f"Sort  the tree {i}", [Document(f"def sort_{i}", "a title" if i % 2 else None)], [Document(f"def x{i}" * 20)])
    for i in range(12)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"))


def model(base: Path, **parts: Any) -> EmbeddingModel:
    settings = {"base": str(base), "lora": {"rank": 4}, "max_tokens": 24, **parts}
    return build(schema.Model.model_validate(settings), base, dtype=torch.float32)


def task(built: EmbeddingModel, rows: Path, tokenize: str = "once", **parts: Any) -> ContrastTask:
    stage = schema.Stage.model_validate(
        {
            "data": [{"name": "rows", "path": str(rows), **parts.pop("source", {})}],
            "task": {"hard_negatives": 1},
            "batch": {"rows": 4, "tokenize": tokenize, **parts.pop("batch", {})},
            "layout": {"row_tokens": 32, "tokens_per_forward": 128, "compile": False},
            "budget": {"steps": 2},
        }
    )
    loaded = load_sources(stage.data)
    made = make_task(stage, loaded, built, lambda: None, max_tokens=24, seed=0)
    assert isinstance(made, ContrastTask)
    return made


@pytest.mark.parametrize("readout", ["mean", "last_token", "echo_delta"])
def test_batches_and_loss_are_those_of_the_texts(base: Path, tmp_path: Path, readout: str) -> None:
    write_rows(tmp_path / "rows.jsonl", ROWS)
    built = model(base, readout=readout)
    once = task(built, tmp_path / "rows.jsonl")
    each = task(built, tmp_path / "rows.jsonl", tokenize="each_time")
    assert isinstance(once.rows[0].query, PretokenizedText) and not isinstance(each.rows[0].query, PretokenizedText)
    for one, two in islice(zip(once.batches(), each.batches(), strict=True), 5):
        for first, second in zip(one.layouts, two.layouts, strict=True):
            assert torch.equal(first.input_ids_RC, second.input_ids_RC)
            assert torch.equal(first.prompts_N, second.prompts_N) and torch.equal(first.cells_T, second.cells_T)
        assert torch.equal(one.hashes.queries_N, two.hashes.queries_N)
        assert torch.equal(one.hashes.positives_N, two.hashes.positives_N)
        assert torch.equal(one.hashes.negatives_NK, two.hashes.negatives_NK)
        assert once.loss(built, one).value.item() == each.loss(built, two).value.item()


def test_distinct_batches_are_those_of_the_texts_whatever_their_letters(base: Path, tmp_path: Path) -> None:
    words = ["Read a file", "read a  FILE", "sort it", "Sort it", "add", "drop", "join", "split"]
    write_rows(
        tmp_path / "rows.jsonl", [Row(word, [Document(f"text {n}")], [Document("no")]) for n, word in enumerate(words)]
    )
    built = model(base)

    def queries(tokenise: str) -> list[list[int]]:
        made = task(built, tmp_path / "rows.jsonl", tokenize=tokenise, batch={"rows": 4, "no_duplicates": True})
        return [batch.hashes.queries_N.tolist() for batch in islice(made.batches(), 6)]

    assert queries("once") == queries("each_time")
    assert all(len(set(keys)) == 4 for keys in queries("once")[::2])  # the last of an epoch may find no other row


def test_kept_until_rows_prompts_limits_or_tokenizer_change(log_lines: list[str], base: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, ROWS)
    built = model(base)

    def made() -> int:
        return sum("tokenizing" in line for line in log_lines)

    task(built, file)
    assert made() == 1
    task(built, file)
    assert made() == 1
    write_rows(file, [*ROWS[:-1], Row("another", [Document("one")], [Document("more")])])
    assert task(built, file).rows[11].query.ids != ROWS[11].query and made() == 2
    task(built, file, source={"prompts": "none"})
    assert made() == 3
    task(built, file, batch={"query_tokens": 8})
    assert made() == 4
    built.tokenizer.hf_tokenizer.add_tokens(["sortierte"])
    task(built, file)
    assert made() == 5


def test_tokens_are_read_as_they_are_and_cut_before_a_closing_eos(base: Path) -> None:
    built = model(base, readout="last_token")
    (plain,) = built.tokenizer.encode([Prompted("query: ", "sort the tree by size and by name")], 100)
    given = PretokenizedText(plain.ids, plain.prompt)
    (same,) = built.tokenizer.encode([Prompted("ignored: ", given)], 100)
    assert same == plain
    (cut,) = built.tokenizer.encode([Prompted("", given)], 6)
    (expected,) = built.tokenizer.encode([Prompted("query: ", "sort the tree by size and by name")], 6)
    assert list(cut.ids) == list(expected.ids) and cut.prompt == expected.prompt


def test_tokens_of_another_vocabulary_and_readouts_that_read_texts_are_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"query": {"input_ids": [2, 999999]}, "pos": [{"input_ids": [5]}]}\n' * 4)
    stage = schema.Stage.model_validate(
        {"data": [{"name": "mine", "path": str(tmp_path / "r.jsonl")}], "budget": {"steps": 1}}
    )
    loaded = load_sources(stage.data)
    settings = schema.Model(base=str(base))
    with pytest.raises(InputError, match=r"stages\.0\.data: source 'mine' has token id 999999, the vocabulary of"):
        check_given_tokens(settings, base, 0, stage, loaded)
    texts = schema.Model.model_validate({"base": str(base), "readout": "contextual_token"})
    with pytest.raises(InputError, match=r"source 'mine' has tokens, and model\.readout contextual_token reads texts"):
        check_given_tokens(texts, base, 0, stage, loaded)


def test_a_run_on_several_kinds_of_sources(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "rows.jsonl", ROWS)
    torch.save(
        {"input_ids": torch.randint(5, 50, (9, 6)), "attention_mask": torch.ones(9, 6, dtype=torch.long)},
        tmp_path / "t.pt",
    )
    (tmp_path / "t.csv").write_text("a,p,n\n" + "".join(f"q{i},p{i},n{i}\n" for i in range(9)))
    (tmp_path / "r.yaml").write_text(f"""
name: several
model: {{base: {base}, max_tokens: 48, lora: {{rank: 4, dropout: 0.1}}}}
stages:
  - data:
      - {{name: rows, path: {tmp_path}/rows.jsonl, weight: 1}}
      - {{name: texts, source: csv, path: {tmp_path}/t.csv, weight: 1, prompts: none}}
      - {{name: tokens, source: tensors, path: {tmp_path}/t.pt, weight: 2, pair_with_itself: true}}
    batch: {{rows: 6, tokenize: once}}
    layout: {{row_tokens: 64, tokens_per_forward: 128, compile: false}}
    budget: {{steps: 3}}
""")
    assert execute(["train", str(tmp_path / "r.yaml"), "--json"]) == 0, capsys.readouterr().err
    run = find_run(str(next((tmp_path / "runs").glob("*several*"))), tmp_path / "runs")
    steps = run.events("step")
    assert len(steps) == 3 and all(step["waited"] >= 0 for step in steps)
    assert run.manifest["data"]["0-contrast"]["tokens"]["rows"] == 9
