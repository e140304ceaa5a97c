"""Which columns of a table hold what: recognised by name, or as the recipe says."""

import pytest

from gemma4vec.data.sources.columns import ColumnMap, map_columns
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import Columns

NEGATIVES_24 = [f"negative_{n}" for n in range(1, 25)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["query", "pos"], ColumnMap("query", ("pos",))),
        (["anchor", "positive"], ColumnMap("anchor", ("positive",))),
        (["anchor", "positive", "negative"], ColumnMap("anchor", ("positive",), ("negative",))),
        (["question", "answer"], ColumnMap("question", ("answer",))),
        (
            ["query", "answer", "negative_2", "negative_1"],
            ColumnMap("query", ("answer",), ("negative_1", "negative_2")),
        ),
        (["query", "passage", *NEGATIVES_24], ColumnMap("query", ("passage",), tuple(NEGATIVES_24))),
        (
            ["query_input_ids", "passage_input_ids", "negative_1_input_ids"],
            ColumnMap("query_input_ids", ("passage_input_ids",), ("negative_1_input_ids",)),
        ),
        (["a", "p", "n"], ColumnMap("a", ("p",), ("n",))),
        *(
            (["query", "pos", name], ColumnMap("query", ("pos",), (name,)))
            for name in (
                "negatives",
                "neg1",
                "neg_1",
                "negative1",
                "negative-1",
                "hard_negative",
                "hard_neg_3",
                "hardneg",
            )
        ),
        *(
            (["query", "pos", name], ColumnMap("query", ("pos",)))
            for name in ("negation", "negative_²", "non_negative")
        ),
        (["a_ids", "a_mask", "p_ids", "p_mask", "n_ids", "n_mask"], ColumnMap("a_ids", ("p_ids",), ("n_ids",))),
        (["query", "pos", "task", "group", "x"], ColumnMap("query", ("pos",), task="task", group="group")),
    ],
)
def test_known_layouts(names: list[str], expected: ColumnMap) -> None:
    assert map_columns(names, None, "f") == expected


def test_plain_texts() -> None:
    assert map_columns(["id", "query"], None, "f", plain=True) == ColumnMap(text="query")
    assert map_columns(["anything"], None, "f", plain=True) == ColumnMap(text="anything")
    with pytest.raises(InputError, match=r"f: columns 'one', 'two': no known layout.*\{text: \.\.\.\}"):
        map_columns(["one", "two"], None, "f", plain=True)


def test_what_the_recipe_says_counts() -> None:
    wanted = Columns(query="q", pos=("x", "y"), neg="z", title="t")
    assert map_columns(["t", "x", "y", "z", "q"], wanted, "f") == ColumnMap("q", ("x", "y"), ("z",), title="t")
    with pytest.raises(InputError, match=r"f: no column 'y'; the columns are 'q', 'x', 'z', 't'"):
        map_columns(["q", "x", "z", "t"], wanted, "f")


def test_judged_pairs_are_not_taken_for_good_ones() -> None:
    with pytest.raises(InputError, match="'label' may mark some pairs as bad"):
        map_columns(["sentence1", "sentence2", "label"], None, "f")


def test_cells_become_a_record() -> None:
    mapped = ColumnMap("q", ("x", "y"), ("n", "m"), task="t")
    value = mapped.record({"q": "Q", "x": "X", "y": ["Y", "Z"], "n": None, "m": "", "t": "search"})
    assert value == {"query": "Q", "pos": ["X", "Y", "Z"], "neg": [], "task": "search"}
    titled = ColumnMap("q", ("x",), title="t").record({"q": "Q", "x": "X", "t": "T"})
    assert titled["pos"] == [{"text": "X", "title": "T"}]


@pytest.mark.parametrize("ids", ["[2, 651, 603]", "2 651 603", "2,651,603", [2, 651, 603]])
def test_token_ids_lose_what_the_mask_leaves_out(ids: object) -> None:
    mapped = ColumnMap("a_ids", ("p_ids",))
    value = mapped.record({"a_ids": ids, "a_mask": "[1, 1, 0]", "p_ids": ids})
    assert value["query"] == {"input_ids": [2, 651]} and value["pos"] == [{"input_ids": [2, 651, 603]}]


@pytest.mark.parametrize(("ids", "mask"), [("2 x", "1 1"), ("2 3", "1"), ("2 3", "x"), ("", "")])
def test_token_ids_that_are_none_stay_visible(ids: str, mask: str) -> None:
    value = ColumnMap("a_ids", ("p_ids",)).record({"a_ids": ids, "a_mask": mask, "p_ids": "1"})
    assert value["query"] in ({"input_ids": None}, None, "")
