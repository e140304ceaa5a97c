"""Characters that nobody sees make no other suite: a copy with them is known, by ledgers of older versions too."""

import json
from dataclasses import replace

import pytest
from planted_suite import planted_suite

from gemma4vec.data.suites.group import make_group
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.files import home
from gemma4vec.ledger.ledger import add, open_ledger
from gemma4vec.ledger.suite_access import NamedSuite, contents_record, may_see
from gemma4vec.ledger.suite_contents import contents_of, find_copies, find_overlaps, suite_record
from gemma4vec.ledger.suite_halves import sealed_elsewhere, sealed_half
from gemma4vec.text.prompts import Document
from gemma4vec.text.sketch import words_hash
from gemma4vec.text.text_hash import visible_text

FINAL = replace(planted_suite(40, "final"), role="final")
OLD_HASH = 0x276C7946CE2D
HIDDEN = {
    "zero width space": "\u200b",
    "zero width joiner": "\u200d",
    "soft hyphen": "\u00ad",
    "byte order mark": "\ufeff",
    "word joiner": "\u2060",
    "direction mark": "\u200f",
    "end of an embedding": "\u202c",
    "variation selector": "\ufe0f",
    "grapheme joiner": "\u034f",
}


def wide(text: str) -> str:
    """The same in full-width letters."""
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


def with_hidden(text: str, mark: str) -> str:
    """With the mark inside of each word."""
    return " ".join(mark.join([word[:1], word[1:]]) for word in text.split(" "))


def copy_of(suite: RetrievalSuite, change: str, start: str = "") -> RetrievalSuite:
    def changed(text: str) -> str:
        return wide(text) if change == "full width" else with_hidden(text, HIDDEN[change])

    return replace(
        suite,
        name="mine",
        role="dev",
        queries=[changed(text) for text in suite.queries],
        corpus=[Document(start + changed(one.text), one.title) for one in suite.corpus],
    )


def check_known(copy: RetrievalSuite) -> None:
    with pytest.raises(InputError, match=r"mine overlaps the final suite final \(40 of its 40 queries\)"):
        may_see(copy, use="choose")


@pytest.mark.parametrize("change", [*HIDDEN, "full width"])
def test_a_copy_of_a_final_suite_is_known_and_counts_in_its_family(change: str) -> None:
    copy = copy_of(FINAL, change)
    assert not {words_hash(text) for text in FINAL.queries} & {words_hash(text) for text in copy.queries}
    may_see(copy, use="choose")  # nothing is known yet
    evaluate(Bm25Model(), FINAL)
    check_known(copy)
    add(home(), contents_record(copy))
    with open_ledger(home()) as ledger:
        assert find_copies(ledger, copy.fingerprint) == [copy.fingerprint, FINAL.fingerprint]
        assert find_copies(ledger, FINAL.fingerprint) == [FINAL.fingerprint, copy.fingerprint]
        assert find_copies(ledger, "another suite") == ["another suite"]


def test_the_copy_may_come_first_and_the_original_may_have_such_characters_itself() -> None:
    original = replace(copy_of(FINAL, "soft hyphen"), name="final", role="final")
    evaluate(Bm25Model(), original)
    for copy in (copy_of(FINAL, "zero width space"), replace(FINAL, name="mine", role="dev")):
        check_known(copy)


def test_many_of_them_before_a_document_hide_nothing() -> None:
    evaluate(Bm25Model(), FINAL)
    check_known(copy_of(FINAL, "zero width joiner", start="\u200b" * 5_000))


def test_records_keep_their_hashes_and_those_of_older_versions_are_compared_too() -> None:
    record = suite_record(FINAL)
    assert record is not None and record.id == f"suite-{FINAL.fingerprint[:32]}" and "visible" not in record.body
    assert words_hash("Where is number 1?") == OLD_HASH  # as the first ledgers have it
    add(home(), [record])  # nothing of it is new
    with open_ledger(home()) as ledger:
        copy = copy_of(FINAL, "word joiner")
        assert [one.copy for one in find_overlaps(ledger, copy.fingerprint, contents_of(copy, copy.fingerprint))] == [
            True
        ]
    hidden = suite_record(copy)
    assert hidden is not None and hidden.body["visible"]["query_hashes"] == record.body["query_hashes"]
    older = {name: value for name, value in json.loads(json.dumps(hidden.body)).items() if name != "visible"}
    add(home(), [replace(hidden, id=f"suite-{copy.fingerprint[:32]}", body=older)])
    assert [one.id for one in contents_record(copy)] == [hidden.id]  # recorded once more, with what is seen of it


def test_a_query_that_is_sealed_is_sealed_with_hidden_characters() -> None:
    add(home(), contents_record(FINAL))
    copy, sealed_N = copy_of(FINAL, "soft hyphen"), sealed_half(FINAL)
    assert sealed_N is not None
    assert sealed_elsewhere(copy.fingerprint, copy.query_ids, copy.queries).tolist() == sealed_N.tolist()
    other = [f"{text} again" for text in copy.queries]
    assert not sealed_elsewhere(copy.fingerprint, copy.query_ids, other).any()


def test_a_group_with_such_a_member_is_known() -> None:
    both = [planted_suite(20, "one", seed=1), planted_suite(20, "two", seed=2)]
    group = make_group("both", both)
    changed = make_group("mine", [both[0], replace(copy_of(both[1], "soft hyphen"), role=None)])
    for one in (group, changed):
        add(home(), contents_record(one))
    with open_ledger(home()) as ledger:
        assert find_copies(ledger, changed.fingerprint) == [changed.fingerprint, group.fingerprint]


def test_contents_whose_name_alone_was_asked_about_are_recorded_with_their_texts() -> None:
    other = planted_suite(30, "asked", seed=9)
    may_see(NamedSuite("asked", other.fingerprint))
    assert contents_record(other)


def test_what_is_seen_of_a_text() -> None:
    assert visible_text("plain text") == "plain text"
    assert visible_text("na\u00efve \u200bte\u00adxt") == visible_text("nai\u0308ve text") == "na\u00efve text"
    assert visible_text("\uff26ull \ufb01re") == "Full fire"
