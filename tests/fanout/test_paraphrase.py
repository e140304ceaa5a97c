"""Paraphrases by a base model: as many as asked for, the same for a seed, one clean line each."""

from pathlib import Path

import pytest
from tiny_model import write_tiny

from gemma4vec.errors import InputError
from gemma4vec.fanout.methods import METHODS
from gemma4vec.fanout.paraphrase import Paraphraser, first_line
from gemma4vec.fanout.setting import Setting


@pytest.fixture(scope="module")
def paraphraser(tmp_path_factory: pytest.TempPathFactory) -> Paraphraser:
    return Paraphraser(str(write_tiny(tmp_path_factory.mktemp("base") / "base", "gemma3", layers=2)))


def test_each_query_has_as_many_as_asked_for_and_a_seed_decides(paraphraser: Paraphraser) -> None:
    queries = [f"sort {number} lists" for number in range(9)]  # more than one batch
    found = paraphraser.write(queries, 3, 0)
    assert [len(one) for one in found] == [3] * 9
    assert found == paraphraser.write(queries, 3, 0) != paraphraser.write(queries, 3, 1)


def test_a_line_is_what_stands_before_the_next_example() -> None:
    assert first_line(" order the list\n\nQuery: x") == "order the list"
    assert first_line("order the list Query: y") == "order the list"
    assert first_line("\x1b[2Jorder").endswith("order") and "\x1b" not in first_line("\x1b[2Jorder")
    assert first_line("") == ""


def test_the_row_is_there_where_a_model_is_named(paraphraser: Paraphraser) -> None:
    method = METHODS["paraphrases"]
    setting = Setting.__new__(Setting)
    object.__setattr__(setting, "log", None)
    object.__setattr__(setting, "paraphraser", None)
    assert not method.can_run(setting)
    object.__setattr__(setting, "paraphraser", paraphraser)
    assert method.can_run(setting) and not METHODS["nearest queries of the log"].can_run(setting)


def test_no_such_base_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        Paraphraser(str(tmp_path / "nowhere"))
