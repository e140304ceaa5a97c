"""The kinds of tasks that validate a model. Their scores mean different things and are never averaged together.

From cheap and remote to costly and close to real use: validation loss, local rank tests, sentence similarity, compact
retrieval, full retrieval. The last three kinds of the list below come from mteb.
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
# Main metric of each kind; a suite may name another one.
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
# Items that are scored individually; those of the other kinds are queries.
ITEMS: dict[str, str] = {
    "loss": "rows",
    "local-rank": "rows",
    "sts": "pairs",
    "classification": "texts",
    "clustering": "clusterings",
    "pair-classification": "pairs",
}
LOWER_IS_BETTER = frozenset({"loss"})


def resolve_role(role: Role | None, requested: Role | None, where: str) -> Role | None:
    """Return the requested role, or the suite's own; a final suite stays final.

    Raises:
        InputError: `requested` is dev and the suite is final.
    """
    if role == "final" and requested == "dev":
        raise InputError(f"{where} is a final suite and cannot be used as dev; leave --role out")
    return requested or role


def name_items(kind: str, count: int = 2) -> str:
    """Name the items of a suite of this kind: "queries", "pairs", or "row" if `count` is 1."""
    word = ITEMS.get(kind, "queries")
    if count != 1:
        return word
    return "query" if word == "queries" else word.removesuffix("s")
