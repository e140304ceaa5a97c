"""A person's own queries and the files or sections that answer them, from a file of tab-separated lines."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gemma4vec.data.documents.links import Places
from gemma4vec.data.documents.read_sections import BinaryError, decode
from gemma4vec.data.documents.section import Section, one_line
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError

HEADER = frozenset({"query", "question", "text"})
FORM = "a line is: query, tab, path or path#heading of the answer; and a tab and a grade, where answers have grades"


@dataclass
class OwnQueries:
    """A suite of a person's queries, and what of their file is not in it.

    Attributes:
        suite: queries with at least one answer in the folder.
        missing: answers that are not in the folder, as the file writes them.
        unanswered: queries left out since none of their answers is there.
        bad_lines: numbers of lines that are not a query and an answer.
    """

    suite: RetrievalSuite
    missing: list[str] = field(default_factory=list)
    unanswered: int = 0
    bad_lines: list[int] = field(default_factory=list)

    def warnings(self) -> list[str]:
        """One line for each thing that was left out."""
        found = []
        if self.bad_lines:
            found.append(f"{len(self.bad_lines):,} lines left out, the first is line {self.bad_lines[0]}: {FORM}")
        if self.missing:
            found.append(f"{len(self.missing):,} answers are not in the folder, the first is {self.missing[0]!a}")
        if self.unanswered:
            found.append(f"{self.unanswered:,} queries left out: none of their answers is in the folder")
        return found


def read_own_queries(path: Path, sections: Sequence[Section], name: str) -> OwnQueries:
    """Read the queries and find their answers among the sections of the folder; lines of one query are one query.

    Where every answer is a whole file, files are found: a file's rank is that of its best section. Otherwise sections
    are found, and an answer that is a file means each of its sections.

    Raises:
        InputError: the file cannot be read, or no query has an answer in the folder.
    """
    answers, bad = _read(path)
    places = Places(sections)
    found: dict[str, dict[int, int]] = {}
    missing: list[str] = []
    kinds: set[str] = set()
    for query, judged in answers.items():
        for answer, grade in judged.items():
            named = places.named(answer)
            if named is None:
                missing.append(answer)
                continue
            kinds.add(named[0])
            for place in named[1]:
                found.setdefault(query, {})[place] = max(grade, found.get(query, {}).get(place, 0))
    found = {query: judged for query, judged in found.items() if max(judged.values()) > 0}
    if not found:
        first = f", such as {missing[0]!a}" if missing else ""
        raise InputError(f"{path}: no query has an answer in the folder{first}; {FORM}")
    units = _units(sections, by_file=kinds == {"file"})
    queries = list(found)
    suite = RetrievalSuite(
        name=name,
        corpus_ids=[section.id for section in sections],
        corpus=[section.as_document() for section in sections],
        query_ids=[f"q{number}" for number in range(1, len(queries) + 1)],
        queries=queries,
        qrels={f"q{number}": _judged(found[query], units) for number, query in enumerate(queries, start=1)},
        role="dev",
        code=sum(section.code for section in sections) > len(sections) / 2,
        units=units,
        documents_in_training=True,
    )
    return OwnQueries(suite, missing, len(answers) - len(found), bad)


def _units(sections: Sequence[Section], *, by_file: bool) -> list[str]:
    """For each section the id of the first section of its file, or of the whole section that it is a part of."""
    first: dict[str, str] = {}
    return [first.setdefault(section.path if by_file else section.unit, section.id) for section in sections]


def _judged(found: dict[int, int], units: Sequence[str]) -> dict[str, int]:
    judged: dict[str, int] = {}
    for place, grade in found.items():
        judged[units[place]] = max(grade, judged.get(units[place], 0))
    return judged


def _read(path: Path) -> tuple[dict[str, dict[str, int]], list[int]]:
    """Query -> answer -> grade, and the numbers of bad lines."""
    try:
        text = decode(path.read_bytes())
    except BinaryError:
        raise InputError(f"{path}: not a text file; {FORM}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    answers: dict[str, dict[str, int]] = {}
    bad: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        query, *rest = (one_line(cell) for cell in line.split("\t"))
        if number == 1 and query.lower() in HEADER:
            continue
        grade = rest[1] if len(rest) > 1 and rest[1] else "1"
        if not query or not rest or not rest[0] or not grade.isdecimal() or len(grade) > 3:
            bad.append(number)
            continue
        answers.setdefault(query, {})[rest[0]] = int(grade)
    return answers, bad
