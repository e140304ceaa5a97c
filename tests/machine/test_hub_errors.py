"""Refusals of the hub, each in one line with the way out."""

import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from gemma4vec.machine.hub_errors import explain_hub_error


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        # A gated repository is a kind of missing one: it is asked for first.
        (GatedRepoError, "access is restricted; accept its terms on its page and log in with `hf auth login`"),
        (RepositoryNotFoundError, "there is no such model, or it is private; check the spelling or log in with "),
        (RevisionNotFoundError, "it has no such revision"),
    ],
)
def test_a_refusal_names_the_way_out(kind: type[Exception], line: str) -> None:
    assert explain_hub_error(kind.__new__(kind, "403"), "model").startswith(line)


def test_another_error_is_one_line_of_at_most_300_characters() -> None:
    assert explain_hub_error(OSError("no\n  route\tto it"), "suite") == "no route to it"
    assert len(explain_hub_error(ValueError("x" * 1000), "suite")) == 300
