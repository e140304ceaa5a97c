"""Questions of the base: the same ones however often the writing stops, and rows that the quickstart trains on."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from small_documents import write_animals
from tiny_model import write_tiny

from gemma4vec.data.documents.build_documents import load_or_build_documents
from gemma4vec.data.documents.section import Section
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.questions.filter_questions import WrittenQuestion
from gemma4vec.data.questions.question_rows import sections_to_ask
from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import InputError
from gemma4vec.fanout.paraphrase import PromptWriter
from gemma4vec.pipeline import write_questions as module
from gemma4vec.pipeline.quickstart import quickstart_recipe
from gemma4vec.pipeline.write_questions import prompt, question, with_questions, write_questions


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("questions")
    write_tiny(root / "base", layers=2)
    write_animals(root / "docs")
    return root


class AskingWriter:
    """Stands in for a base that can write: it asks about the second sentence, badly for some sections."""

    asked: list[str] = []  # noqa: RUF012  # the fixture gives each test its own
    stops_after: int | None = None

    def __init__(self, base: str) -> None:
        pass

    def write(self, prompts: Sequence[str], *, tokens: int, one_line: bool) -> list[list[str]]:
        if AskingWriter.stops_after is not None and len(AskingWriter.asked) >= AskingWriter.stops_after:
            raise KeyboardInterrupt
        found = []
        for text in prompts:
            passage = text.rpartition("Passage: ")[2].partition("\nQuestion:")[0]
            AskingWriter.asked.append(passage)
            animal, day = passage.split()[1], passage.split("in which day ")[1].split()[0]
            odd = int(day) % 4 == 1
            found.append([f" {'no question' if odd else f'Which calendar has day {day} of the {animal}?'} And\nmore"])
        return found


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> type[AskingWriter]:
    monkeypatch.setattr(module, "PromptWriter", AskingWriter)
    monkeypatch.setattr(AskingWriter, "asked", [])
    monkeypatch.setattr(AskingWriter, "stops_after", None)
    return AskingWriter


def order_of(place: Path, data: Path) -> list[Section]:
    return sections_to_ask(load_or_build_documents(place / "docs", data=data).training_sections())


def test_what_stopped_goes_on_and_more_goes_on_from_fewer(
    place: Path, tmp_path: Path, asking: type[AskingWriter]
) -> None:
    order = order_of(place, tmp_path)
    whole = write_questions("base", order, 20, tmp_path / "whole")
    assert [one.section for one in whole] == [section.id for section in order[:20]] and len(asking.asked) == 24
    asking.asked.clear()
    asking.stops_after = 8
    with pytest.raises(KeyboardInterrupt, match="8 of 20 questions are kept, the same command goes on"):
        write_questions("base", order, 20, tmp_path / "parts")
    asking.stops_after = None
    assert write_questions("base", order, 9, tmp_path / "parts") == whole[:9]
    assert write_questions("base", order, 20, tmp_path / "parts") == whole and len(asking.asked) == 24
    (tmp_path / "parts" / "written.jsonl").write_text('{"section": "x", "ques')
    assert write_questions("base", order, 3, tmp_path / "parts") == whole[:3]


def test_a_base_writes_the_same_questions_again(place: Path, tmp_path: Path) -> None:
    order = order_of(place, tmp_path)
    one = write_questions(str(place / "base"), order, 9, tmp_path / "one")
    writer = PromptWriter(str(place / "base"))
    again = [text for (text,) in writer.write([prompt(section) for section in order[:8]], tokens=32, one_line=True)]
    assert [made.question for made in one[:8]] == list(map(question, again)) and len(one) == 9


def test_questions_are_a_source_of_rows_about_training_sections(
    place: Path, tmp_path: Path, asking: type[AskingWriter], log_lines: list[str]
) -> None:
    changes = [f"stages.0.data.0.path={place / 'docs'}", f"model.base={place / 'base'}"]
    recipe = quickstart_recipe(changes, "documents")
    assert with_questions(recipe, 0) == recipe
    changed = with_questions(recipe, 1_000)
    built = load_or_build_documents(place / "docs")
    sections, held_out = built.training_sections(), set(built.manifest["split"]["test"])
    assert len(asking.asked) == len(sections) < 36
    loaded = load_sources(changed.stages[0].data, hard_negatives=4)
    rows = [row for row in loaded.rows if row.task == "question"]
    bad = sum(line.startswith("questions: ") and "left out: " in line for line in log_lines)
    assert bad == 1 and 10 < len(rows) < len(sections)
    by_text = {section.text: section for section in sections}
    for row in rows:
        answer = by_text[row.pos[0].text]
        assert answer.path not in held_out and answer.headings[0].split()[1] in row.query
        assert len(row.neg) == 4 and row.pos[0] not in row.neg
    assert len({row.group for row in rows}) == 2 and loaded.sources["questions"]["rows"] == len(rows)
    assert {row.query for row in rows}.isdisjoint(load_suite(built.test).queries)
    assert with_questions(recipe, 1_000) == changed


def test_what_is_kept_is_counted_and_none_is_no_source(
    place: Path, asking: type[AskingWriter], monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    monkeypatch.setattr(asking, "write", lambda self, prompts, **_: [["what is this?"] for _ in prompts])
    changes = [f"stages.0.data.0.path={place / 'docs'}", f"model.base={place / 'base'}"]
    recipe = quickstart_recipe(changes, "documents")
    assert with_questions(recipe, 8) == recipe
    assert "questions: 0 of 8 kept; left out: 8 not one question of 4 to 24 words" in log_lines


def test_code_has_no_sections_to_ask_about() -> None:
    with pytest.raises(InputError, match="--questions is for documents"):
        with_questions(quickstart_recipe([], "code"), 3)


def test_an_encoder_writes_nothing(tmp_path: Path) -> None:
    write_tiny(tmp_path / "base", "t5gemma2", layers=2)
    with pytest.raises(InputError, match="encoder"):
        PromptWriter(str(tmp_path / "base"))


def test_a_question_ends_at_its_first_mark() -> None:
    assert question(" What is  it? Answer: x\n\nPassage: y") == "What is it?"
    assert question("no mark\nsecond line?") == "no mark"
    long = Section("a", "a", ("Title",), "word " * 400)
    assert prompt(long).endswith("word word\nQuestion:") and len(prompt(long)) < 1_400
    assert WrittenQuestion("a", "b") == ("a", "b")
