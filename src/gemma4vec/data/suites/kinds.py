"""The kinds of tasks that a model is validated by. Their scores mean different things and are never averaged together.

From cheap and far from the use to dear and near to it: validation loss, local rank tests, sentence similarity, compact
retrieval, full retrieval. The last three kinds come from mteb.
"""

from typing import Literal, get_args

from gemma4vec.errors import InputError

Kind = Literal[
    "loss",
    "local-rank",
    "sts",
    "compact-retrieval",
    "retrieval",
    "classification",
    "clustering",
    "pair-classification",
]
Role = Literal["dev", "final"]

KINDS: tuple[Kind, ...] = get_args(Kind)
RETRIEVAL_KINDS: tuple[Kind, ...] = ("retrieval", "compact-retrieval")
ROW_KINDS: tuple[Kind, ...] = ("local-rank", "loss")
# The figure that stands for the kind where a suite names none.
MAIN_METRIC: dict[str, str] = {
    "loss": "loss",
    "local-rank": "mrr",
    "sts": "spearman",
    "compact-retrieval": "ndcg@10",
    "retrieval": "ndcg@10",
    "classification": "accuracy",
    "clustering": "v_measure",
    "pair-classification": "ap",
}
# What is scored one by one.
ITEMS: dict[str, str] = {
    "loss": "rows",
    "local-rank": "rows",
    "sts": "pairs",
    "classification": "texts",
    "clustering": "clusterings",
    "pair-classification": "pairs",
}
LOWER_IS_BETTER = frozenset({"loss"})


def resolve_role(role: Role | None, asked: Role | None, where: str) -> Role | None:
    """The role that a suite has when a person asks for `asked`: a final suite stays one.

    Raises:
        InputError: `asked` is dev and the suite is final.
    """
    if role == "final" and asked == "dev":
        raise InputError(f"{where} is a final suite; what was looked at as dev cannot be one again: leave --role out")
    return asked or role


def name_items(kind: str, count: int = 2) -> str:
    """What a suite of this kind consists of, for people: "queries", "pairs", of one "row"."""
    word = ITEMS.get(kind, "queries")
    if count != 1:
        return word
    return "query" if word == "queries" else word.removesuffix("s")
