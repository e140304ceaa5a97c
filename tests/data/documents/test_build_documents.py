"""From a folder to rows and a test: nothing of the test is in training, and a folder that changes is read again."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from small_documents import write_animals, write_every_kind

from gemma4vec.data.documents.build_documents import load_or_build_documents
from gemma4vec.data.documents.document_rows import Settings, group_near
from gemma4vec.data.documents.folder_files import FileKind
from gemma4vec.data.documents.links import Places
from gemma4vec.data.documents.pairs import make_pairs
from gemma4vec.data.documents.section import Section
from gemma4vec.data.rows.rows import read_rows
from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import InputError


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_animals(tmp_path_factory.mktemp("animals") / "docs")


def test_held_out_files_are_not_in_training(animals: Path, tmp_path: Path) -> None:
    data = load_or_build_documents(animals, data=tmp_path)
    held, rows, suite = data.manifest["split"]["test"], read_rows(data.train).rows, load_suite(data.test)
    assert data.manifest["split"]["unit"] == "file" and 2 <= len(held) <= 4
    assert data.manifest["test"] == "held-out documents" and suite.name == "docs-held-out-documents"
    assert {key.partition("#")[0] for key in suite.corpus_ids} == set(held)
    names = [name.removesuffix(".md") for name in held]
    for row in rows:
        texts = [row.query, *(document.text for document in (*row.pos, *row.neg))]
        assert not any(name in text for name in names for text in texts)


def test_queries_of_the_test_are_not_in_what_they_look_for(animals: Path, tmp_path: Path) -> None:
    suite = load_suite(load_or_build_documents(animals, data=tmp_path).test)
    documents = dict(zip(suite.corpus_ids, suite.corpus, strict=True))
    for key, query in zip(suite.query_ids, suite.queries, strict=True):
        for found in suite.qrels[key]:
            assert query not in documents[found].text and query not in (documents[found].title or "").split(" > ")


def test_rows_have_queries_of_every_kind_and_no_wrong_negatives(tmp_path: Path) -> None:
    write_animals(tmp_path / "docs")
    write_every_kind(tmp_path / "docs" / "more")
    data = load_or_build_documents(tmp_path / "docs", Settings(None), tmp_path / "data")
    by_section = defaultdict(list)
    for row in read_rows(data.train).rows:
        assert row.pos[0] not in row.neg and len(row.neg) == len(set(row.neg)) == 4
        by_section[row.pos[0].text[:20]].append(row)
    kinds = Counter(row.task for rows in by_section.values() for row in rows)
    assert {"heading", "sentence"} <= set(kinds)
    sections = data.sections()
    everything = {pair.kind for pair in make_pairs(sections, range(len(sections)))}
    assert everything == {"heading", "sentence", "link", "code"}


def test_rows_of_one_section_are_in_different_groups(animals: Path, tmp_path: Path) -> None:
    rows = read_rows(load_or_build_documents(animals, data=tmp_path).train).rows
    groups = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    for members in groups.values():
        titles = [
            row.pos[0].title if row.task == "sentence" else f"{row.pos[0].title} > {row.query}" for row in members
        ]
        assert len(titles) == len(set(titles))


def test_the_same_folder_gives_the_same_data(animals: Path, tmp_path: Path) -> None:
    one = load_or_build_documents(animals, data=tmp_path / "one")
    other = load_or_build_documents(animals, data=tmp_path / "other")
    assert one.content_hash == other.content_hash and one.path.name == other.path.name


def test_a_new_file_leads_to_new_data_and_only_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gemma4vec.data.documents import read_sections

    folder = write_animals(tmp_path / "docs")
    first = load_or_build_documents(folder, data=tmp_path / "data")
    assert load_or_build_documents(folder, data=tmp_path / "data").path == first.path
    read: list[str] = []
    real = read_sections._sections_of

    def counted(raw: bytes, kind: FileKind, path: str) -> list[Section]:
        read.append(path)
        return real(raw, kind, path)

    monkeypatch.setattr(read_sections, "_sections_of", counted)
    (folder / "new.md").write_text("# The whale\n\nA whale that nobody has seen lives behind the last island of all.\n")
    after = load_or_build_documents(folder, data=tmp_path / "data")
    assert read == ["new.md"] and after.path != first.path
    assert len(after.sections()) == len(first.sections()) + 1
    (folder / "heron.md").write_text(
        "# The heron\n\nA heron that everybody has seen lives before the first island of all.\n"
    )
    changed = load_or_build_documents(folder, data=tmp_path / "data")
    assert read == ["new.md", "heron.md"] and len(changed.sections()) == len(after.sections()) - 2


def test_a_file_that_took_too_long_is_not_tried_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gemma4vec.data.documents import read_sections
    from gemma4vec.machine.processes.timed_reader import TimedReader, TookTooLongError

    tried: list[str] = []

    def slow(self: TimedReader, raw: bytes, path: str) -> None:
        tried.append(path)
        raise TookTooLongError

    monkeypatch.setattr(read_sections.TimedReader, "read", slow)
    folder = write_animals(tmp_path / "docs")
    (folder / "slow.pdf").write_bytes(b"x")
    for number, name in enumerate(("new.md", "newer.md", "slow.pdf"), start=1):
        data = load_or_build_documents(folder, data=tmp_path / "data")
        assert data.warnings[0] == "1 left out: took over 60 s (slow.pdf)" and len(data.sections()) == 35 + number
        assert tried == ["slow.pdf"]
        text = f"# The {name}\n\nAn animal called {name} lives behind the last island of all.\n"
        (folder / name).write_text(text, encoding="utf-8")
    load_or_build_documents(folder, data=tmp_path / "data")
    assert tried == ["slow.pdf", "slow.pdf"]


def test_own_queries_are_the_test_and_all_documents_train(animals: Path, tmp_path: Path) -> None:
    file = tmp_path / "queries.tsv"
    file.write_text(
        "query\tpath\n"
        "what does the otter do\totter.md#the-otter-of-the-cellar\n"
        "where is the lynx\tlynx.md#The lynx of the ridge\n"
        "where is the lynx\tlynx.md#the-lynx-of-the-harbor\t2\n"
        "about nothing\tdragon.md\n"
        "no tab here\n"
    )
    data = load_or_build_documents(animals, Settings(file), tmp_path / "data")
    suite = load_suite(data.test)
    assert suite.queries == ["what does the otter do", "where is the lynx"] and suite.name == "docs-own-queries"
    assert suite.qrels["q2"] == {"lynx.md#the-lynx-of-the-ridge": 1, "lynx.md#the-lynx-of-the-harbor": 2}
    assert len(suite.corpus) == len(data.sections()) == 36
    assert data.manifest["test"] == "own queries" and data.manifest["split"]["test"] == []
    trained = {document.title for row in read_rows(data.train).rows for document in row.pos}
    assert any("otter" in (title or "") for title in trained)
    assert data.warnings == [
        "1 lines left out, the first is line 6: a line is: query, tab, path or path#heading of the answer; and a tab "
        "and a grade, where answers have grades",
        "1 answers are not in the folder, the first is 'dragon.md'",
        "1 queries left out: none of their answers is in the folder",
        "only 2 test queries: large differences can be chance",
    ]


def test_files_are_found_where_every_answer_is_a_file(animals: Path, tmp_path: Path) -> None:
    file = tmp_path / "queries.tsv"
    file.write_text("otters\totter.md\nbread thieves\t./viper.md\nbread thieves\tlynx.md\n")
    suite = load_suite(load_or_build_documents(animals, Settings(file), tmp_path / "data").test)
    assert suite.units is not None and len(set(suite.units)) == 12 and len(suite.units) == 36
    assert suite.qrels["q1"] == {"otter.md#the-otter-of-the-cellar": 1}
    assert [len(judged) for judged in suite.qrels.values()] == [1, 2]


def test_queries_in_the_folder_are_no_document(tmp_path: Path) -> None:
    folder = write_animals(tmp_path / "docs", files=6)
    file = folder / "queries.txt"
    file.write_text("which of the animals does steal the bread\tviper.md\nwhere do otters live\totter.md\n")
    data = load_or_build_documents(folder, Settings(file), tmp_path / "data")
    assert data.manifest["left_out"] == {"the file of queries": 1}
    assert not any("which of the animals" in section.text for section in data.sections())


@pytest.mark.parametrize("text", ["", "a query\tnowhere.md\n", "no tabs\n", "a\totter.md\t0\n"])
def test_queries_without_any_answer_are_refused(animals: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "q.tsv").write_text(text)
    with pytest.raises(InputError, match="no query has an answer in the folder"):
        load_or_build_documents(animals, Settings(tmp_path / "q.tsv"), tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        (None, b"", "no document that can be read .it is empty."),
        ("a.png", b"x", "no document that can be read .1 left out: of a kind that is not read"),
        ("a.md", b"\0\0", "no document has text that can be read: 1 left out: bytes that are not text"),
        ("a.md", b"# A\n\nfew words\n", "too little text to hold some of it out"),
    ],
)
def test_a_folder_without_text_is_refused(tmp_path: Path, name: str | None, raw: bytes, message: str) -> None:
    (tmp_path / "docs").mkdir()
    if name:
        (tmp_path / "docs" / name).write_bytes(raw)
    with pytest.raises(InputError, match=message):
        load_or_build_documents(tmp_path / "docs", data=tmp_path / "data")


def test_sections_are_held_out_where_files_are_few(tmp_path: Path) -> None:
    data = load_or_build_documents(write_animals(tmp_path / "docs", files=3), data=tmp_path / "data")
    assert data.manifest["split"]["unit"] == "section" and data.manifest["counts"]["test_queries"] >= 1


def test_near_duplicates_of_the_test_are_not_trained_on(tmp_path: Path) -> None:
    folder = write_animals(tmp_path / "docs")
    for file in sorted(folder.glob("*.md")):
        (folder / f"copy of {file.name}").write_text(file.read_text() + "\nand so on\n")
    data = load_or_build_documents(folder, data=tmp_path / "data")
    assert data.manifest["counts"]["near_duplicates"] == 36
    suite, rows = load_suite(data.test), read_rows(data.train).rows
    tested = {" ".join(document.text.split()[:12]) for document in suite.corpus}
    assert tested.isdisjoint(" ".join(row.pos[0].text.split()[:12]) for row in rows)


def section(key: str, text: str = "some words that are read by people", **others: object) -> Section:
    return Section(key, key.partition("#")[0], **{"headings": (), "text": text, **others})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "path", "found"),
    [
        ("b.md#x", "a/a.md", "a/b.md#x"),
        ("b.html#x", "a/a.md", "a/b.md#x"),
        ("../a/b.md", "a/a.md", "a/b.md"),
        ("/a/b", "c.md", "a/b.md"),
        ("a/", "c.md", "a/index.rst"),
        ("#x", "a/b.md", "a/b.md#x"),
        ("ref:label", "c.md", "a/index.rst"),
        ("https://example.org/a/b.md", "c.md", None),
        ("../../../etc/passwd", "a/a.md", None),
        ("b.md#none", "a/a.md", None),
        ("http://[", "a/a.md", None),
    ],
)
def test_links_lead_to_sections(target: str, path: str, found: str | None) -> None:
    sections = [
        section("a/b.md"),
        section("a/b.md#x", anchors=("x",)),
        section("a/index.rst", anchors=("label",)),
        section("a/a.md"),
        section("c.md"),
    ]
    place = Places(sections).find(target, path)
    assert (None if place is None else sections[place].id) == found


def test_a_query_of_two_sections_is_no_pair() -> None:
    words = (
        "This very sentence stands in both of the sections here. And this one is about the number {} alone, of course."
    )
    sections = [section(f"a.md#{n}", words.format(n), headings=("Overview",), anchors=(n,)) for n in ("one", "two")]
    assert {pair.query for pair in make_pairs(sections, [0, 1])} == {
        f"And this one is about the number {n} alone, of course." for n in ("one", "two")
    }


def test_a_heading_is_taken_from_the_beginning_of_its_text() -> None:
    text = "Wings in a slipstream . (Wings) were measured in a tunnel at several speeds."
    pairs = make_pairs([section("a.md#x", text, headings=("wings in a Slipstream.",))], [0])
    heading = next(pair for pair in pairs if pair.kind == "heading")
    assert heading.answer.text == "(Wings) were measured in a tunnel at several speeds."


def test_groups_are_of_near_sections_and_never_of_parts_of_one() -> None:
    texts = [f"{word} {word} story number {n}" for word in ("apple", "boat", "cloud") for n in range(4)]
    sections = [section(f"{n}.md", text) for n, text in enumerate(texts)]
    groups = group_near(sections, size=4)
    assert [len(set(groups[start : start + 4])) for start in (0, 4, 8)] == [1, 1, 1]
    parts = [section(f"a.md#x{'' if n == 1 else f'~{n}'}", f"apple {n}", part=n) for n in range(1, 5)]
    assert len(set(group_near(parts))) == 4
