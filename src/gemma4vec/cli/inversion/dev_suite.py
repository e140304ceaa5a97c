"""The dev suite of a command that chooses by it."""

from typing import TYPE_CHECKING

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.data.suites.retrieval import RetrievalSuite


def open_dev_suite(spec: str) -> "RetrievalSuite":
    """Open the suite of `--suite`.

    Raises:
        InputError: it is final, since choices are made on it, or no retrieval suite.
    """
    from gemma4vec.data.loading.open_suite import open_suite
    from gemma4vec.data.suites.retrieval import RetrievalSuite
    from gemma4vec.ledger.suite_access import check_choice

    suite = open_suite(spec)
    check_choice("--suite", suite, *suite.members)
    if not isinstance(suite, RetrievalSuite):
        raise InputError(f"--suite {spec}: {suite.name} is no retrieval suite; name a folder in BEIR format")
    return suite
