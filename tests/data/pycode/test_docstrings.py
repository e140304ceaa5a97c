"""First sentences of docstrings, as queries."""

import pytest

from gemma4vec.data.pycode.docstrings import extract_first_sentence, find_sentence_flaw


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return the value. Then more.", "Return the value."),
        ("\n    Compute\n    the thing\n\n    and more.", "Compute the thing"),
        ("Use the third, e.g. this one, i.e. it. Not that.", "Use the third, e.g. this one, i.e. it."),
        ("Load v1.2 of file.py now. Next", "Load v1.2 of file.py now."),
        ("Is it so? Yes.", "Is it so?"),
        ("Return ``x`` from :class:`~a.b.C` and :func:`f <a.f>`.", "Return x from C and f."),
        ("Visit `docs <http://a.b>`_ or [this](http://x.y) for `more`_.", "Visit docs or this for more."),
        ("Compute **all** of *it*, x*y*z and **kwargs.", "Compute all of it, x*y*z and **kwargs."),
        ("Divergence KL(p \\| q) of two.", "Divergence KL(p | q) of two."),
        ("Make a thing::\n\n    code()", "Make a thing"),
        ("Do this\n>>> f()\n", "Do this"),
        ("Do this\n:param x: a thing", "Do this"),
        ("Do this\n-------\nnot that", "Do this"),
        ("f(x, y=None) -> int\n\nCompute the thing.", "Compute the thing."),
        ("x : int\n    The thing.", ""),
        ("x (int): The thing.", ""),
        ("Args:\n    x: The thing.", ""),
        (".. deprecated:: 1.0\n", ""),
        ("", ""),
    ],
)
def test_first_sentence(docstring, sentence):
    assert extract_first_sentence(docstring) == sentence


@pytest.mark.parametrize(
    ("sentence", "flaw"),
    [
        ("", "no sentence"),
        ("Do it.", "short sentence"),
        ("word " * 80, "long sentence"),
        ("Gibt die Übergröße für Ärzte überall ähnlich zurück über Öl", "not English"),
        ("返回 列表 中 的 所有 值", "not English"),
        ("a b c == 1 + 2 * 3 / 4 - 5 ** 6 <= 7 >> 8 & 9 | 10", "not English"),
        ("Taken from https://a.b/c with changes", "sentence with a link"),
        ("Return the nodes of a graph.", None),
        ("Don't stop re-using it.", None),
    ],
)
def test_sentence_flaw(sentence, flaw):
    assert find_sentence_flaw(sentence) == flaw
