"""A trained suggester: what it writes, that its texts are those of the model step by step, and queries never walked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fanout_setting import make
from tiny_suggester import ROWS, train_suggester, write_pairs

from gemma4vec.errors import InputError
from gemma4vec.fanout.measure import measure_fanout
from gemma4vec.fanout.methods import METHODS
from gemma4vec.fanout.never_walked import document_key, drop_walked
from gemma4vec.fanout.suggester import Suggester, title_of
from gemma4vec.fanout.training_rows import TITLES, as_pairs, walk_suite
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.packing.packed_batch import Tokens, lay_out
from gemma4vec.model.suggester.suggester_folder import SuggesterFacts
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import words_key
from gemma4vec.training.writing.suggestion_pairs import pairs_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("suggester")
    return train_suggester(write_pairs(folder), folder / "runs")


@pytest.fixture(scope="module")
def suggester(run: RunFolder) -> Suggester:
    return Suggester.load(run.path, device="cpu", dtype="fp32")


def test_it_learns_to_write_what_it_was_shown(run: RunFolder, suggester: Suggester) -> None:
    after = run.events("held_out")[-1]["parts"]
    assert after["own query"] < after["another query's"]
    learned = set(suggester.facts.queries)
    pairs = [pair for pair in pairs_of(ROWS) if words_key(pair.query) in learned][::5]
    right = [suggester.write(pair.query, pair.titles, 1)[0].text == pair.suggestion for pair in pairs]
    plain = [suggester.write(pair.query, (), 1)[0].text == pair.suggestion for pair in pairs]
    assert np.mean(right) > 0.4 and np.mean(plain) > 0.4  # by chance one of sixty


def test_the_likeliest_text_is_that_of_whole_forward_passes(suggester: Suggester) -> None:
    """Without kept keys and values: the whole text is read again for every token."""
    parts, query, titles = suggester.parts, "read the node", ["read def", "the node"]
    (before,) = parts.frame.before(parts.tokenizer, [query], [titles])
    ids: list[int] = []
    with torch.no_grad():
        while len(ids) < parts.frame.text_tokens:
            states = parts.backbone(lay_out([Tokens([*before, *ids])], [[0]], len(before) + len(ids), 0))
            logits = suggester._forbid(parts.head.logits(states[-1:]).float())
            token = int(logits.argmax())
            if token == parts.frame.end_id:
                break
            ids.append(token)
    (found,) = suggester.write(query, titles, 1)
    assert found.text == parts.tokenizer.hf_tokenizer.decode(ids).strip()


def test_suggestions_are_different_and_never_the_query(suggester: Suggester) -> None:
    found = suggester.suggest("sort the node", [], 4, seed=3)
    texts = [one.text for one in found]
    assert 1 <= len(texts) <= 4 and len(set(texts)) == len(texts) and "sort the node" not in texts
    assert [one.log_probability for one in found] == sorted((one.log_probability for one in found), reverse=True)
    assert suggester.suggest("sort the node", [], 4, seed=3) == found
    several = suggester.write("sort the node", [], 70, seed=3)
    few = suggester.write("sort the node", [], 8, seed=3)
    assert len(several) == 70 and [one.text for one in several[:8]] == [one.text for one in few]


def facts(queries: list[str], documents: list[Document]) -> SuggesterFacts:
    return SuggesterFacts(
        name="s",
        reading={"query_tokens": 8, "titles": 2, "title_tokens": 8},  # type: ignore[arg-type]
        max_tokens=64,
        trained_pairs=1,
        queries=tuple(map(words_key, queries)),
        documents=tuple(map(document_key, documents)),
        held_out=(),
        made_from={},
    )


def test_walked_queries_and_those_of_walked_documents_are_left_out() -> None:
    suite = make().suite
    learned = facts([suite.queries[3].upper()], [suite.corpus[7]])
    smaller, left_out = drop_walked(suite, learned)
    # Query 3 itself; queries 6 and 7 have document 7 among their relevant ones.
    assert left_out == 3 and smaller.query_ids == [key for key in suite.query_ids if key not in ("q3", "q6", "q7")]
    assert smaller.corpus == suite.corpus and set(smaller.qrels) == set(smaller.query_ids)
    assert drop_walked(suite, facts([], [])) == (suite, 0)
    with pytest.raises(InputError, match=r"--suggester: it learned from 20 of the 24 queries of walks"):
        drop_walked(suite, facts(suite.queries[:20], []))


def test_its_row_stands_in_the_table(suggester: Suggester) -> None:
    setting = replace(make(queries=10, n=2), suggester=suggester)
    rows = {
        row["method"]: row for row in measure_fanout(setting, ["suggestions", "nearest queries of the log"])["rows"]
    }
    assert rows["suggestions"]["written"] == 4 and not rows["suggestions"]["oracle"]
    texts = METHODS["suggestions"].texts
    assert texts is not None
    titles = setting.titles(0, 2)
    assert texts(setting)[0] == [one.text for one in suggester.write(setting.suite.queries[0], titles, 4)]
    assert not METHODS["suggestions"].can_run(make())


def test_pairs_of_a_walk_name_query_titles_and_document() -> None:
    setting = make()
    row, aim, found = next(one for one in walk_suite(setting, "gold") if one[2].texts)
    pairs = pairs_of(as_pairs(setting, row, aim, found))
    assert [pair.suggestion for pair in pairs] == found.texts
    first = [setting.suite.corpus[place] for place in setting.own_rankings[row, :TITLES]]
    assert {pair.query for pair in pairs} == {setting.suite.queries[row]}
    assert {pair.titles for pair in pairs} == {tuple(title_of(document) for document in first)}
    assert {pair.document for pair in pairs} == {document_key(setting.suite.corpus[aim[0]])}


def test_a_document_without_title_is_called_by_its_first_words() -> None:
    assert title_of(Document("word " * 40)) == " ".join(["word"] * 12)
    assert title_of(Document("text", "Title")) == "Title"


def test_a_folder_without_a_suggester_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--suggester: there is no folder .*; train one with a recipe of the task"):
        Suggester.load(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds no suggester \(suggester\.json\); the task suggestion writes one"):
        Suggester.load(tmp_path)
