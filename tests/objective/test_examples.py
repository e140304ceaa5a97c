"""The examples in the docstrings of the losses are true."""

import doctest
import importlib
import pkgutil

import pytest

import gemma4vec.objective

MODULES = sorted(module.name for module in pkgutil.iter_modules(gemma4vec.objective.__path__))
WITHOUT_EXAMPLES = {"false_negatives", "gather", "row_mean"}


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_hold(name: str) -> None:
    module = importlib.import_module(f"gemma4vec.objective.{name}")
    tried = doctest.testmod(module)
    assert tried.failed == 0
    assert (tried.attempted > 0) != (name in WITHOUT_EXAMPLES)
