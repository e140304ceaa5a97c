"""The page about an inspection: it loads nothing, has no script, and hostile texts stay texts."""

from pathlib import Path

from hostile_page import HOSTILE, Page
from planted_suite import PlantedModel, planted_suite

from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.inspection_files import load_inspection
from gemma4vec.report.inspect_page import write_inspect_page
from gemma4vec.text.prompts import Document


def test_everything_is_on_the_page_and_hostile_texts_are_texts(tmp_path: Path) -> None:
    suite = planted_suite(140)
    suite.queries = [f"{query} {HOSTILE}" if "7" in query else query for query in suite.queries]
    suite.corpus = [Document(f"{text} {HOSTILE}") for text, _ in suite.corpus]
    model = PlantedModel()
    model.name = HOSTILE.replace("\x00", "").replace("/", "")[:40]
    inspect(Subject(model, "planted"), suite, tmp_path / "out", against=Subject(Bm25Model(), "bm25"))
    about, slices = load_inspection(tmp_path / "out")
    page = Page(write_inspect_page(tmp_path / "page.html", tmp_path / "out", suite).read_text())
    assert not {"script", "img", "b>"} & set(page.tags) - {"b"} and "src" not in dict(page.attributes)
    assert "\x1b" not in page.text and "\u202e" not in page.text and "{{ 7 * 7 }}" in page.text
    assert all(one["rule"] in page.text for one in slices)
    assert all(one["name"] in page.text for one in [*about["kinds"], *about["figures"]])
    assert f"{about['figures'][0]['value']:.3f}" in page.text
    assert "Slices, paired" in page.text and "Slices, absolute" in page.text
    assert page.tags.count("details") >= 5
