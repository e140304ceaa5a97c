"""Functions are extracted without their docstrings; everything else, and the meaning of the code, stays."""

import ast
import inspect
import json
import textwrap

import pytest

from gemma4vec.data.pycode.extract import MAX_CHARACTERS, extract

BODY = "    a = 1\n    b = 2\n    return a + b"


def functions(source, encoding="utf-8"):
    return extract(source.encode(encoding), "pkg/mod.py", "pkg").functions


def only(source):
    (found,) = functions(source)
    return found


def test_a_function_is_taken_with_its_comments_and_decorators():
    head, tail = "@x.deco(\n    1)\n# why\ndef f(a, # first\n      b):\n", f"    # how\n{BODY}"
    found = only(f'import x\n\n{head}    """Add two numbers. More."""\n{tail}\n\nz = 1\n')
    assert found.source == head + tail
    assert (found.id, found.package, found.path, found.name) == ("pkg/mod.py:f", "pkg", "pkg/mod.py", "f")
    assert (found.line, found.query) == (3, "Add two numbers.")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f'def f():\n    """Add two numbers."""\n{BODY}', f"def f():\n{BODY}"),
        (f'def f():\n    """Add two numbers.\n\n    More.\n    """\n\n{BODY}', f"def f():\n{BODY}"),
        (f"def f():\n    'Add two ' \\\n    'numbers.'\n{BODY}", f"def f():\n{BODY}"),
        (f'def f():\n    """Add two numbers."""; x = "é"; y = 2\n{BODY}', f'def f():\n    x = "é"; y = 2\n{BODY}'),
        (f'def f():\n    """Add twö numbers."""  # noqa\n{BODY}', f"def f():\n    # noqa\n{BODY}"),
        (f'def f():\n    ("Add two "\n     "numbers.")\n{BODY}', f"def f():\n{BODY}"),
        ('def f(): """Add two numbers."""; return [\n  1,\n  2,\n]', "def f(): return [\n  1,\n  2,\n]"),
        (f'def f():\r\n\t"""Add two numbers."""\r\n\t{BODY.strip()}', f"def f():\n\t{BODY.strip()}"),
        (f'def f():\n    r"""Add two \\alpha numbers."""\n{BODY}', f"def f():\n{BODY}"),
    ],
)
def test_the_docstring_goes(before, after):
    if before.startswith("def f():\r"):
        before, after = before.replace("\n    ", "\n\t"), after.replace("\n    ", "\n\t")
    found = only(before)
    assert found.source == after and found.query is not None
    ast.parse(found.source)


def test_no_docstring_means_no_query():
    for source in (
        f"def f():\n{BODY}",
        f"def f():\n    b'Add two numbers.'\n{BODY}",
        f"def f():\n    f'Add two {{1}}.'\n{BODY}",
    ):
        found = only(source)
        assert found.query is None and found.source == source


def test_strings_in_the_body_keep_their_indentation():
    body = '        x = """\n  low\n            deep"""\n        y = 1\n        return x'
    source = f'class A:\n    def f(self):\n        """Add two numbers."""\n{body}'
    assert only(source).source == 'def f(self):\n    x = """\n  low\n        deep"""\n    y = 1\n    return x'


def test_qualified_names_and_repeated_ones():
    block = textwrap.indent(BODY, "        ")
    source = (
        f"if 1:\n    def f():\n{block}\nelse:\n    def f():\n{block}\n"
        f"class A:\n  class B:\n    async def m(self):\n{block}\n"
        f"try:\n    def g():\n{block}\nexcept E:\n    def h():\n{block}\n"
    )
    ids = [found.id.removeprefix("pkg/mod.py:") for found in functions(source)]
    assert ids == ["f", "f#2", "A.B.m", "g", "h"]


def test_nested_functions_belong_to_the_outer_one():
    source = f"def outer():\n    def inner():\n{textwrap.indent(BODY, '    ')}\n    return inner"
    assert [found.name for found in functions(source)] == ["outer"]


def test_filters_and_what_they_count():
    long = "\n".join(f"    x{number} = {number}" for number in range(MAX_CHARACTERS // 10))
    source = "\n".join(
        [
            f"def __init__(self):\n{BODY}",
            f"def test_it():\n{BODY}",
            f"class TestThing:\n    def helper(self):\n{textwrap.indent(BODY, '    ')}",
            "def short():\n    # one\n\n    # two\n    return 1",
            'def only_docstring():\n    """Add two numbers.\n\n\n    """',
            f"def long():\n{long}",
            f'def terse():\n    """Do it."""\n{BODY}',
        ]
    )
    found = extract(source.encode(), "m.py", "m")
    assert [function.name for function in found.functions] == ["terse"]
    assert dict(found.reasons) == {
        "files": 1,
        "functions": 7,
        "dunder method": 1,
        "test": 2,
        "short body": 2,
        "long source": 1,
        "short sentence": 1,
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"def f(:\n", "unparseable file"),
        (b"def f(): pass\n\x00", "unparseable file"),
        (b"# coding: no-such\ndef f(): pass", "undecodable file"),
        (b"def f(): '\xff\xfe'", "undecodable file"),
        (b"def f(): " + b"(" * 5_000 + b")" * 5_000, "unparseable file"),
    ],
)
def test_bad_files_are_counted(content, reason):
    assert extract(content, "m.py", "m") == ([], {"files": 1, reason: 1})


def test_declared_encodings_and_form_feeds():
    first = f'# coding: latin-1\n\x0cdef f():\n    """Add twö numbers."""\n{BODY}\n\x0c\n'
    found = functions(first + 'def g():\n    s = "\u0085é"\n    t = 1\n    return s', "latin-1")
    assert [function.name for function in found] == ["f", "g"]
    assert found[0].query == "Add twö numbers." and found[1].source.startswith('def g():\n    s = "\u0085é"')


@pytest.mark.parametrize("module", [textwrap, inspect, json.decoder, json.encoder])
def test_real_modules_mean_the_same_without_docstrings(module):
    """Oracle: the syntax tree of the extracted code equals that of the original without its docstring."""
    text = inspect.getsource(module)
    originals = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            originals[min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])] = node
    found = functions(text)
    assert len(found) >= 4
    for function in found:
        original = originals[function.line]
        if ast.get_docstring(original) is not None:
            original.body = original.body[1:]
        assert ast.dump(ast.parse(function.source).body[0]) == ast.dump(original), function.id
