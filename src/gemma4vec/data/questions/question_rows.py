"""The sections that a model is asked about, and training rows from the questions that are kept."""

from collections.abc import Sequence

from gemma4vec.data.documents.document_rows import group_near, mine_negatives
from gemma4vec.data.documents.section import Section
from gemma4vec.data.ngrams.word_ngrams import normalize
from gemma4vec.data.pycode.split import sort_by_hash
from gemma4vec.data.questions.filter_questions import WrittenQuestion
from gemma4vec.data.rows.rows import Row

SECTION_WORDS = 20
TASK = "question"


def sections_to_ask(sections: Sequence[Section]) -> list[Section]:
    """Sections with enough prose to ask about, in the order of their ids' hashes: the first n of them are a sample."""
    by_id = {
        section.id: section
        for section in sections
        if not section.code and len(normalize(section.text).split()) >= SECTION_WORDS
    }
    return [by_id[key] for key in sort_by_hash(by_id)]


def make_question_rows(kept: Sequence[WrittenQuestion], sections: Sequence[Section], negatives: int) -> list[Row]:
    """A row for each question, in groups of near sections, with hard negatives as the folder's other rows have them.

    Args:
        kept: questions, at most one of a section.
        sections: all sections that may be trained on; negatives are taken from them.
        negatives: hard negatives of each row.
    """
    by_id = {section.id: section for section in sections}
    answers = [by_id[one.section] for one in kept]
    rows = [
        Row(one.question, [answer.as_document()], task=TASK, group=f"{TASK}-{group}")
        for one, answer, group in zip(kept, answers, group_near(answers), strict=True)
    ]
    return mine_negatives(rows, answers, sections, negatives)
