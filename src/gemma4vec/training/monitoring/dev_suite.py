"""The dev suite of a stage: every evaluation that may change a training looks at it, so it must not be a final one."""

from pathlib import Path

from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.recipe.schema import Evaluation


def dev_folder(settings: Evaluation, dev: Path | None) -> Path | None:
    """Return the folder that a stage is evaluated on: the recipe's, or its sources' dev suite; None if neither."""
    return Path(settings.suite) if settings.suite else dev


def needed_dev_folder(settings: Evaluation, dev: Path | None, key: str) -> Path | None:
    """Return the folder of evaluations inside a training; None if the recipe asks for none.

    Raises:
        InputError: it asks for some, and there is no suite.
    """
    if settings.background or (settings.every_steps is None and not settings.at_shares):
        return None
    folder = dev_folder(settings, dev)
    if folder is None:
        raise InputError(f"{key}: every_steps or at_shares is set, but there is no suite; name one as {key}.suite")
    return folder


def open_dev_suite(folder: Path, queries: int | None, documents: int | None, key: str) -> RetrievalSuite:
    """Open a dev suite and sample it.

    Args:
        queries, documents: size of the sample; None takes all.
        key: of the recipe; it begins the errors.

    Raises:
        InputError: the suite that is sampled from, or the sample, is final; or its files are not valid.
    """
    whole = load_suite(folder)
    suite = sample_suite(whole, queries, documents)
    check_choice(key, *([whole] if suite is whole else [whole, suite]))
    return suite
