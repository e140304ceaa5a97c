"""Training says what is known about its data, and keeps it in the manifest."""

from pathlib import Path

from gemma4vec.data.loading.resolve_names import sources_of_run
from gemma4vec.data.quality.check import check_sources, make_records
from gemma4vec.data.quality.contamination_record import write_record
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.text.prompts import Document
from gemma4vec.training.prepare_run import load_data
from gemma4vec.training.run import start_run

RECIPE = """
name: stamped
stages:
  - name: adapt
    data: [{{name: texts, source: text, path: {folder}/texts.txt}}]
    task: {{kind: masked_next_token}}
    budget: {{steps: 1}}
  - data: [{{name: rows, path: {folder}/rows.jsonl}}]
    budget: {{steps: 1}}
"""
SUITES = [
    RetrievalSuite("asked", ["d"], [Document("elsewhere")], ["q"], ["a question"], {"q": {"d": 1}}),
    RetrievalSuite("read", ["d"], [Document("one line of text")], ["q"], ["unasked"], {"q": {"d": 1}}),
    RetrievalSuite("clean", ["d"], [Document("nothing")], ["q"], ["of it"], {"q": {"d": 1}}),
]


def test_overlaps_that_are_known_are_said_and_noted(log_lines: list[str], tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [Row("A question?", [Document("p")]), Row("b", [Document("c")])])
    (tmp_path / "texts.txt").write_text("One line of text.\nanother\n")
    recipe = parse_recipe(RECIPE.format(folder=tmp_path), "recipe")
    run = start_run(recipe, tmp_path / "runs")
    load_data(run, recipe, 0)
    assert run.manifest["contamination"] == {} and not log_lines
    texts = [suite.texts() for suite in SUITES]
    for stamp in make_records(check_sources(sources_of_run(run), texts), texts, 0.7):
        write_record(stamp)
    log_lines.clear()
    for number in (0, 1):
        load_data(run, recipe, number)
    assert [line.split(";")[0] for line in log_lines] == [
        "warning: texts overlaps the suite read: 1 of 1 queries are touched",
        "warning: rows overlaps the suite asked: 1 of 1 queries are touched",
    ]
    noted = run.manifest["contamination"]
    assert sorted(noted) == ["asked", "read"] and noted["asked"]["rows"]["touched_queries"] == 1
    assert sorted(run.manifest["data"]) == ["0-adapt", "1-contrast"]
