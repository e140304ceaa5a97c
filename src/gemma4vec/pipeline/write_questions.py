"""Questions that the base writes for sections of a person's folder, as a further source of training rows.

Sections are asked about in an order that is the same everywhere, in batches that do not depend on how many are wanted;
the greedy continuation is taken. So more questions go on from fewer, and a killed process loses one batch.
"""

import logging
import textwrap
from collections.abc import Sequence
from pathlib import Path

from gemma4vec.data.documents.section import Section, one_line
from gemma4vec.data.loading.built_sources import build_documents_of
from gemma4vec.data.questions.filter_questions import ENDS, KeptQuestions, WrittenQuestion, filter_questions
from gemma4vec.data.questions.question_rows import make_question_rows, sections_to_ask
from gemma4vec.data.rows.jsonl import read_lines, write_lines
from gemma4vec.data.rows.rows import content_hash, write_rows
from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import InputError
from gemma4vec.fanout.paraphrase import PromptWriter, first_line
from gemma4vec.files import home, sha256_text
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.pipeline.quickstart_data import documents_source
from gemma4vec.recipe.schema import Recipe
from gemma4vec.recipe.sources import JsonlSource

logger = logging.getLogger(__name__)

NAME = "questions"
EXAMPLES = (
    (
        "Harbor office: The office opens at eight. Boats that arrive earlier wait at the red buoy and call channel 12.",
        "Where do I wait with my boat before the harbor opens?",
    ),
    (
        "Iron: Vitamin C helps the body take up iron. Tea and coffee with a meal halve what it takes up.",
        "What should I not drink when I take iron?",
    ),
    (
        "Backups: A snapshot is made each night. Deleted files can be restored from it for thirty days.",
        "How long can I get back a file that I deleted?",
    ),
)
BATCH = 8  # sections at once
READ = 600  # characters of a section
TOKENS = 32  # of a question, at most


def with_questions(recipe: Recipe, count: int) -> Recipe:
    """The recipe with a further source: questions that its base writes for `count` sections, of which a filter keeps
    some. Nothing changes with a count of 0, or where none is kept.

    Raises:
        InputError: it does not train on documents, or its base writes nothing.
        WorkError: the disk is full.
        KeyboardInterrupt: with what is kept.
    """
    if count < 1:
        return recipe
    source = documents_source(recipe)
    if source is None:
        raise InputError("--questions is for documents, and this trains on code; leave it out, or add --as documents")
    built = build_documents_of(source)
    sections = built.training_sections()
    order = sections_to_ask(sections)
    if not order:
        logger.warning("questions: no section has enough prose to ask about")
        return recipe
    folder = home() / "data" / f"{NAME}-{_key(recipe.model.base, order)}"
    wanted = min(count, len(order))
    written = write_questions(recipe.model.base, order, wanted, folder)
    found = filter_questions(
        written, sections, examples=[question for _, question in EXAMPLES], tested=load_suite(built.test).queries
    )
    logger.info(describe(found, wanted))
    if not found.kept:
        return recipe
    rows = make_question_rows(found.kept, sections, source.negatives)
    file = folder / f"rows-{content_hash(rows)[:12]}.jsonl"
    write_rows(file, rows)
    stage = recipe.stages[0]
    sources = (*stage.data, JsonlSource(name=NAME, path=str(file)))
    return recipe.model_copy(update={"stages": (stage.model_copy(update={"data": sources}), *recipe.stages[1:])})


def write_questions(base: str, order: Sequence[Section], wanted: int, folder: Path) -> list[WrittenQuestion]:
    """Ask the base about the first `wanted` sections; what the folder has already is not asked again.

    Raises:
        InputError: the base cannot be loaded, or is an encoder.
        KeyboardInterrupt: with what is kept.
    """
    file = folder / "written.jsonl"
    written = _read(file, order)
    if len(written) >= wanted:
        return written[:wanted]
    logger.info(f"{base} writes questions for {wanted:,} sections ({len(written):,} are there)")
    writer = PromptWriter(base)
    try:
        with ProgressBar("questions", "sections") as bar:
            bar(len(written), wanted)
            while len(written) < wanted:
                batch = order[len(written) : len(written) + BATCH]
                texts = writer.write([prompt(section) for section in batch], tokens=TOKENS, one_line=True)
                written += [WrittenQuestion(one.id, question(text)) for one, (text,) in zip(batch, texts, strict=True)]
                write_lines(file, (one._asdict() for one in written))
                bar(min(len(written), wanted), wanted)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; {len(written):,} of {wanted:,} questions are kept, the same command goes on"
        ) from None
    return written[:wanted]


def prompt(section: Section) -> str:
    """Examples, then the section, and the beginning of the line that the base is to write."""
    shown = [f"Passage: {passage}\nQuestion: {asked}" for passage, asked in EXAMPLES]
    title = f"{section.headings[-1]}: " if section.headings else ""
    passage = textwrap.shorten(f"{title}{section.text}", READ, placeholder="")
    return "\n\n".join([*shown, f"Passage: {passage}\nQuestion:"])


def question(text: str) -> str:
    """The first line of what the base wrote, up to its first question mark."""
    line = one_line(first_line(text))
    ends = [line.index(end) for end in ENDS if end in line]
    return line[: min(ends) + 1] if ends else line


def describe(found: KeptQuestions, asked: int) -> str:
    """Numbers of what is kept and left out, by reason, in one line."""
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(found.left_out.items()))
    return f"questions: {len(found.kept):,} of {asked:,} kept" + (f"; left out: {reasons}" if reasons else "")


def _key(base: str, order: Sequence[Section]) -> str:
    """A hash of all that the questions depend on."""
    return sha256_text(resolve_base(base).weights, str(BATCH), *map(prompt, order))[:16]


def _read(file: Path, order: Sequence[Section]) -> list[WrittenQuestion]:
    """The questions of whole batches that are there; none where the file is damaged."""
    if not file.is_file():
        return []
    values = [value for _, value, _ in read_lines(file)]
    ids = [section.id for section in order[: len(values)]]
    if any(value is None or set(value) != set(WrittenQuestion._fields) for value in values) or ids != [
        value["section"] for value in values if value is not None
    ]:
        logger.info(f"{file} is damaged; questions are written again")
        return []
    return [WrittenQuestion(**value) for value in values if value is not None]
