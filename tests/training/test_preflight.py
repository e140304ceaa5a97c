"""What cannot be trained is refused in one line, by the run and the dry run alike, before a run folder is made."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_model import write_tiny
from tiny_run import rows

from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.errors import InputError
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.schema import Contrast, Recipe
from gemma4vec.text.prompts import Document
from gemma4vec.training.estimate.dry_run import estimate
from gemma4vec.training.preflight import check_base
from gemma4vec.training.prepare_run import check_inputs
from gemma4vec.training.terms.checks import check_dropout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base, and rows."""
    made = tmp_path_factory.mktemp("preflight")
    write_tiny(made / "base", "gemma3", layers=2)
    write_rows(made / "rows.jsonl", rows())
    return made


def recipe(folder: Path, *overrides: str, path: Path | None = None, **model: Any) -> Recipe:
    tree = {
        "name": "p",
        "model": {"base": str(folder / "base"), "max_tokens": 48, "prompts": "none", "lora": {"rank": 2}} | model,
        "stages": [
            {
                "data": [{"name": "rows", "path": str(path or folder / "rows.jsonl")}],
                "batch": {"rows": 4},
                "layout": {"compile": False, "row_tokens": 64, "tokens_per_forward": 256},
                "budget": {"steps": 2},
            }
        ],
    }
    return parse_recipe(yaml.safe_dump(tree), "p", list(overrides))


PROMPT = "{query: 'task: search result | query: ', document: ''}"
ON_DOCUMENTS = "{query: '', document: 'title: {title} | text: '}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.max_tokens=8", f"model.prompts={PROMPT}"], r"^model\.max_tokens: the query prompt .* takes \d+ of 8 "),
        (["stages.0.batch.query_tokens=8", f"model.prompts={PROMPT}"], r"^stages\.0\.batch\.query_tokens: the query"),
        (
            ["stages.0.batch.document_tokens=8", f"stages.0.data.0.prompts={ON_DOCUMENTS}"],
            r"^stages\.0\.batch\.document_tokens: the document prompt",
        ),
        (["model.max_tokens=200000"], r"^model\.max_tokens: 200000 tokens, and the base reads 131072 "),
        (["stages.0.task.terms=[{kind: self_contrast}]"], r"^stages\.0\.task\.terms\.0: self_contrast compares two"),
        (["model.lora.modules=[w]"], r"^model\.lora\.modules: the base has no 'w'"),
    ],
)  # fmt: skip
def test_limits_and_terms(folder: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_inputs(recipe(folder, *overrides))
    assert "\n" not in str(caught.value)


def test_a_prompt_that_leaves_little_is_reported(folder: Path, log_lines: list[str]) -> None:
    prompts = {"query": "read the file ", "document": ""}
    used = check_base(recipe(folder, prompts=prompts), folder / "base").tokenizer.prompt_tokens("read the file ")
    log_lines.clear()
    check_base(recipe(folder, prompts=prompts, max_tokens=used + 3), folder / "base")
    assert log_lines[0].startswith(
        f"warning: model.max_tokens: the query prompt 'read the file ' takes {used} of {used + 3}"
    )
    assert log_lines[0].endswith("3 are left for the text")


SAME = [Row("read", [Document("a file")])] * 24
ITSELF = [Row(f"{n}", [Document(f"{n}")]) for n in range(24)]
ONE_POSITIVE = [Row(f"{n}", [Document("a file")]) for n in range(24)]
ONE_QUERY = [Row("read", [Document(f"{n}")]) for n in range(24)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (SAME, r"^stages\.0\.data: every row of source 'rows' is the same, 'read'; nothing can be learned"),
        (ITSELF, r"^stages\.0\.data: every row of source 'rows' is its own positive, .*no dropout"),
        (ONE_POSITIVE, r"^stages\.0\.data: every row of source 'rows' has the same positive"),
        (ONE_QUERY, r"^stages\.0\.data: every row of source 'rows' has the same query"),
    ],
    ids=["same", "itself", "one positive", "one query"],
)  # fmt: skip
def test_rows_without_signal(folder: Path, tmp_path: Path, data: list[Row], message: str) -> None:
    write_rows(tmp_path / "rows.jsonl", data)
    with pytest.raises(InputError, match=message):
        check_inputs(recipe(folder, path=tmp_path / "rows.jsonl"))
    other = Row("sort", [Document("a tree")])
    write_rows(tmp_path / "rows.jsonl", [*data, other])  # one row that differs is enough
    check_inputs(recipe(folder, path=tmp_path / "rows.jsonl"))


def test_own_positives_need_dropout_or_prompts(folder: Path, tmp_path: Path, log_lines: list[str]) -> None:
    write_rows(tmp_path / "rows.jsonl", ITSELF)
    check_inputs(recipe(folder, "model.lora.dropout=0.1", path=tmp_path / "rows.jsonl"))
    assert "is its own positive (SimCSE); check the columns" in log_lines[-1]
    check_inputs(recipe(folder, path=tmp_path / "rows.jsonl", prompts={"query": "q: ", "document": ""}))
    assert "the two differ by their prompts alone" in log_lines[-1]


@pytest.mark.parametrize("prompts", ["none", {"query": "q: ", "document": ""}], ids=["none", "two prompts"])
def test_a_source_paired_with_itself_needs_dropout(
    folder: Path, tmp_path: Path, log_lines: list[str], prompts: Any
) -> None:
    """Refused by run and dry run alike, before the file is read; with dropout both accept it without a word."""
    texts = tmp_path / "texts.txt"
    source = f"stages.0.data=[{{name: texts, source: text, path: {texts}, pair_with_itself: true}}]"
    terms = "stages.0.task.terms=[{kind: nce, hardness: 0}, {kind: gor}]"
    message = r"^stages\.0\.data: source 'texts' is paired with itself, and this model has no dropout: .*dropout=0\.1 "
    for check in (check_inputs, estimate):
        with pytest.raises(InputError, match=message) as caught:
            check(recipe(folder, source, terms, prompts=prompts))
        assert "\n" not in str(caught.value)
    texts.write_text("".join(f"line {n}\n" for n in range(24)))
    log_lines.clear()
    check_inputs(recipe(folder, source, terms, "model.lora.dropout=0.1", prompts=prompts))
    assert not [line for line in log_lines if "positive" in line]
    # A teacher makes vectors differ that are alike, so there is something to learn.
    taught = "stages.0.task.terms=[{kind: nce, hardness: 0}, {kind: matching, vectors: teacher.jsonl}]"
    encoder, stage = check_base(recipe(folder), folder / "base").encoder, recipe(folder, source, taught).stages[0]
    check_dropout(stage, encoder)
    with pytest.raises(InputError, match=r"^data: source 'texts'"):
        check_dropout(stage.model_copy(update={"task": Contrast()}), encoder)


def test_the_few_short_rows_are_left_out_of_run_and_dry_run(folder: Path, tmp_path: Path, log_lines: list[str]) -> None:
    made = rows(3)
    made[5] = Row(made[5].query, made[5].pos, made[5].neg[:1])
    write_rows(tmp_path / "rows.jsonl", made)
    asked = recipe(folder, "stages.0.task.hard_negatives=3", path=tmp_path / "rows.jsonl")
    (data,) = check_inputs(asked).data
    assert len(data.rows) == 23 and made[5].query not in [row.query for row in data.rows]
    log_lines.clear()
    assert estimate(asked).sources["rows"]["left_out"] == 1
    assert "rows: 1 of 24 rows have fewer than 3 hard negatives and are left out" in log_lines


def damage_shard(base: Path) -> None:
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def add_adapter(base: Path) -> None:
    (base / "adapter_config.json").write_text("{}")


def raise_vocabulary(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_shard, "model.safetensors is cut"),
        (add_adapter, "has full weights and an adapter"),
        (raise_vocabulary, "the embedding 300 rows"),
    ],
)
def test_run_and_dry_run_refuse_alike_and_leave_no_folder(
    folder: Path, tmp_path: Path, damage: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(shutil.copytree(folder / "base", tmp_path / "base"))
    damage(base)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(folder, f"model.base={base}").model_dump(mode="json")))
    said = []
    for more in (["--dry-run"], ["--out", str(tmp_path / "runs")]):
        assert execute(["train", str(file), *more]) == 2
        said.append(capsys.readouterr().err.strip().splitlines()[-1])
    assert said[0] == said[1] and message in said[0]
    assert not (tmp_path / "runs").exists()


def test_evaluations_without_a_suite_are_refused_before_weights_are_read(folder: Path) -> None:
    asked = recipe(folder, "stages.0.evaluation={every_steps: 1}")
    with pytest.raises(InputError, match=r"stages\.0\.evaluation: every_steps or at_shares is set, but there is no"):
        estimate(asked)
    with pytest.raises(InputError, match="there is no suite; name one as"):
        check_inputs(asked)
