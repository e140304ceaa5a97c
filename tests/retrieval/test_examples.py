"""The examples in the docstrings of the retrieval functions are true."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["bm25", "tokenize", "top_k"])
def test_examples_of_a_module_hold(name: str) -> None:
    tried = doctest.testmod(importlib.import_module(f"gemma4vec.retrieval.{name}"))
    assert tried.attempted > 0 and tried.failed == 0
