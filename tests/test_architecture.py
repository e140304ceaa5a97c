"""docs/architecture.md says which room may import which; here that is enforced, and what `--help` may load."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "gemma4vec"
GROUND_FLOOR = {"errors", "files"}
# The package's root (its version) and the commands' entry are not rooms.
ENTRIES = {"__init__", "__main__"}
LONGEST_FILE = 400
# Calls inside a function that go back up, each with its reason. Keep it short.
DOORS = {
    (
        "model.inference.embedder",
        "model.inference.load",
    ): "Embedder.load(x) is how everybody opens a model; what x may be is a file of its own",
}
MOST_FILES = 16
MOST_OF_A_PREFIX = 3
# Saved models name this path for ever; it hands on what another file holds.
PATHS_TO_KEEP = {"model/sentence_transformers_module.py"}
HEAVY = {"torch", "transformers", "scipy", "pyarrow", "datasets", "sentence_transformers", "peft"}


def tree() -> list[tuple[str, list[str]]]:
    """(room, its entries in order) of the tree in docs/architecture.md, from the ground up."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found: list[tuple[str, list[str]]] = []
    for line in text.split("```text\nsrc/gemma4vec/\n", 1)[1].split("\n```", 1)[0].split("\n"):
        names = re.split(r"\s{2,}", line.strip())[0].split()
        if line.startswith("    "):
            found[-1][1].extend(names)
        else:
            found.extend((name, []) for name in names)
    return found


def rooms_in_order() -> list[str]:
    return [name.removesuffix("/") for name, _ in tree() if name.endswith("/")]


@cache
def modules() -> dict[str, Path]:
    """`model.bases.resolve` -> its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


@cache
def imports_of(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Every import of a file, also of those inside functions. Parsing 700 files for each test took a minute."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module below gemma4vec) of every import."""
    for node in imports_of(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("gemma4vec."):
                yield node.lineno, resolve(name.removeprefix("gemma4vec."))


def resolve(name: str) -> str:
    """The longest leading part of a dotted name that is a module: `model.bases.resolve.resolve_base` ->
    `model.bases.resolve`."""
    known = modules()
    parts = name.split(".")
    while parts and ".".join(parts) not in known:
        parts.pop()
    return ".".join(parts) or "__init__"


def room_of(module: str) -> str:
    return module.split(".")[0]


def test_the_table_names_every_room() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders == set(rooms_in_order())


def test_imports_go_down_only() -> None:
    order = {room: height for height, room in enumerate(rooms_in_order())}
    wrong = []
    for module, path in modules().items():
        room = room_of(module)
        if room in ENTRIES:
            continue
        for line, target in imported(path):
            other = room_of(target)
            if other in GROUND_FLOOR | ENTRIES or other == room:
                continue
            if room in GROUND_FLOOR or order[other] > order[room]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {room} imports {target}")
    assert wrong == []


def test_the_tree_names_every_subroom() -> None:
    """In a room with sub-rooms every folder and file has its place in the tree; other rooms' files need none."""
    for room, entries in tree():
        folder = PACKAGE / room
        if folder.is_file():
            continue
        inside = {f"{path.name}/" for path in folder.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
        if inside:
            inside |= {path.name for path in folder.glob("*.py") if path.name != "__init__.py"}
        assert inside == set(entries), room
        assert len(entries) == len(set(entries)), room


def entry_of(module: str) -> str:
    """`model.bases.resolve` -> `bases/`; `training.loop` -> `loop.py`."""
    parts = module.split(".")
    is_folder = (PACKAGE / parts[0] / parts[1]).is_dir() and (len(parts) > 2 or modules()[module].name == "__init__.py")
    return f"{parts[1]}/" if is_folder else f"{parts[1]}.py"


def test_imports_between_subrooms_go_down_only() -> None:
    places = {room.removesuffix("/"): {name: place for place, name in enumerate(entries)} for room, entries in tree()}
    wrong = []
    for module, path in modules().items():
        room = room_of(module)
        if not places.get(room) or "." not in module:
            continue
        for line, target in imported(path):
            if room_of(target) != room or "." not in target:
                continue
            own, other = entry_of(module), entry_of(target)
            # Files that share a line of the tree may import each other; circles are another test's.
            if own.endswith("/") and places[room][other] > places[room][own]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {own} imports {other}")
    assert wrong == []


def folders() -> list[Path]:
    return [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and any(path.glob("*.py")))]


def test_folders_are_small() -> None:
    sizes = {str(path.relative_to(ROOT)): len(list(path.glob("*.py"))) for path in folders()}
    assert {name: size for name, size in sizes.items() if size > MOST_FILES} == {}


def test_no_prefix_stands_for_a_folder() -> None:
    """Four files with one prefix are a folder that nobody made."""
    wrong = {}
    for folder in folders():
        stems = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
        for prefix in {stem.split("_")[0] for stem in stems}:
            sharing = [stem for stem in stems if stem == prefix or stem.startswith(f"{prefix}_")]
            if len(sharing) > MOST_OF_A_PREFIX:
                wrong[str(folder.relative_to(ROOT))] = sorted(sharing)
    assert wrong == {}


def test_base_names_are_unique_in_a_room() -> None:
    for room in rooms_in_order():
        names: dict[str, list[str]] = {}
        for path in (PACKAGE / room).rglob("*.py"):
            place = path.relative_to(PACKAGE).as_posix()
            if path.name != "__init__.py" and place not in PATHS_TO_KEEP:
                names.setdefault(path.name, []).append(place)
        assert {name: places for name, places in names.items() if len(places) > 1} == {}, room


def test_no_circles_between_modules() -> None:
    graph = {
        module: {target for _, target in imported(path) if target != module and (module, target) not in DOORS}
        for module, path in modules().items()
        if module != "__init__"  # it imports nothing when it is imported, which the next test checks
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def test_the_package_root_imports_nothing_of_ours() -> None:
    """Its public names are imported when they are used; before that only type checkers follow them."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in at_once] == ["from typing import TYPE_CHECKING"]
    blocks = [ast.unparse(node.test) for node in tree.body if isinstance(node, ast.If)]
    assert blocks == ["TYPE_CHECKING"]


def test_every_imported_package_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {Requirement(text).name for text in project["dependencies"]}
    for texts in project["optional-dependencies"].values():
        declared |= {Requirement(text).name for text in texts}
    declared = {canonicalize_name(name) for name in declared}
    providers = packages_distributions()
    missing = set()
    for path in modules().values():
        for root in foreign_roots(path):
            names = providers.get(root, [root])
            if not declared & {canonicalize_name(name) for name in names}:
                missing.add(f"{path.relative_to(ROOT)} imports {root}")
    assert missing == set()


def test_every_dependency_is_imported() -> None:
    """What only an extra needs is declared there; what only another dependency needs comes with that one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    providers = packages_distributions()
    roots = {root for path in modules().values() for root in foreign_roots(path)}
    imported = {canonicalize_name(name) for root in roots for name in providers.get(root, [])}
    assert declared - imported == set()


def foreign_roots(path: Path) -> set[str]:
    """Top-level packages that a file imports, other than Python's own and ours."""
    found = set()
    for node in imports_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        else:
            found.add((node.module or "").split(".")[0])
    return found - sys.stdlib_module_names - {"gemma4vec", "compression"}  # compression: Python's own from 3.14


def private_imports(path: Path) -> Iterator[str]:
    """Names with a leading underscore that a file takes from `evaluation/`, imported or as an attribute."""
    source = path.read_text(encoding="utf-8")
    if "gemma4vec.evaluation" not in source:
        return
    tree = ast.parse(source)
    modules_by_name: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gemma4vec.evaluation"):
            yield from (f"{node.lineno}: {alias.name}" for alias in node.names if alias.name.startswith("_"))
            modules_by_name |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            modules_by_name |= {a.asname or a.name for a in node.names if a.name.startswith("gemma4vec.evaluation")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and ast.unparse(node.value) in modules_by_name:
            yield f"{node.lineno}: {node.attr}"


def test_only_evaluation_uses_its_unguarded_functions() -> None:
    """Scores without the rules for final suites, and p-values without the ledger's family, are private to the room."""
    others = [path for module, path in modules().items() if module.split(".")[0] != "evaluation"]
    others += sorted((ROOT / "benchmarks").rglob("*.py"))
    wrong = [f"{path.relative_to(ROOT)}:{found}" for path in others for found in private_imports(path)]
    assert wrong == []


def test_an_unguarded_import_is_found(tmp_path: Path) -> None:
    file = tmp_path / "caller.py"
    lines = [
        "from gemma4vec.evaluation.comparison.paired import Comparison, _compare_uncorrected",
        "from gemma4vec.evaluation.scoring import score_rows",
        "import gemma4vec.evaluation.comparison.paired as raw",
        "score_rows._score_rows",
        "raw._compare_uncorrected",
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert list(private_imports(file)) == ["1: _compare_uncorrected", "4: _score_rows", "5: _compare_uncorrected"]


def test_every_door_is_in_use() -> None:
    for module, target in DOORS:
        assert target in {name for _, name in imported(modules()[module])}, (
            f"{module} -> {target} can be taken off the list"
        )


def test_a_circle_is_found() -> None:
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


def test_room_fronts_import_nothing_heavy() -> None:
    for room in rooms_in_order():
        front = PACKAGE / room / "__init__.py"
        assert not front.exists() or not list(imported(front)), f"{front} imports"


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > LONGEST_FILE} == {}


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["doctor", "--help"], ["train", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys; from gemma4vec.cli.main import execute; code = execute(sys.argv[1:]);"
        "print('LOADED', code, *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True, cwd=ROOT / "src"
    )
    code, *loaded = done.stdout.split("LOADED", 1)[1].split()
    assert code == "0"
    assert HEAVY.isdisjoint(loaded)


UPSTREAM_FILE = "model/upstream.py"
UPSTREAM_PACKAGES = {"torch", "transformers", "peft", "sentence_transformers"}
# Private by their spelling, documented by Python itself.
PYTHONS_OWN = {"_asdict", "_exit", "_fields", "_make", "_replace"}
# Private names of other libraries, each with its reason. Keep it short.
OTHER_PRIVATE = {
    ("data/sources/open_source.py", "_fingerprint"): "datasets has no public identity of a data set",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@cache
def own_private_names() -> frozenset[str]:
    """Private names that our own code defines, as functions, classes, variables or attributes of `self`."""
    found = set()
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                    found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return frozenset(name for name in found if is_private(name))


def foreign_private_names(source: str, own: frozenset[str]) -> Iterator[tuple[int, str]]:
    """(line, name) of each private name of another library: imported, read or set, also by `getattr` and `setattr`."""
    for node in ast.walk(ast.parse(source)):
        for name in names_in(node):
            if is_private(name) and name not in own | PYTHONS_OWN:
                yield node.lineno, name
        if isinstance(node, ast.Attribute) and node.attr == "__class__" and isinstance(node.ctx, ast.Store):
            yield node.lineno, "__class__"


def names_in(node: ast.AST) -> list[str]:
    """Names of other objects' parts that a node of the syntax tree uses."""
    match node:
        case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UPSTREAM_PACKAGES:
            return [*module.split("."), *(alias.name for alias in node.names)]
        case ast.Import():
            dotted = [alias.name.split(".") for alias in node.names]
            return [part for parts in dotted if parts[0] in UPSTREAM_PACKAGES for part in parts]
        case ast.Attribute(attr=name):
            return [name]
        case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]):
            return [name]
    return []


def test_private_names_of_other_libraries_stand_in_one_file() -> None:
    own = own_private_names()
    wrong = []
    for path in modules().values():
        place = path.relative_to(PACKAGE).as_posix()
        if place == UPSTREAM_FILE:
            continue
        for line, name in foreign_private_names(path.read_text(encoding="utf-8"), own):
            if (place, name) not in OTHER_PRIVATE:
                wrong.append(f"{place}:{line}: {name}; use a function of {UPSTREAM_FILE}")
    assert wrong == []


@pytest.mark.parametrize(
    "source",
    [
        "from torch._dynamo import config",
        "import torch._inductor.config",
        "from transformers.utils import _is_offline",
        "torch._foreach_copy_(a, b)",
        "layer._compiled_call_impl = None",
        "setattr(layer, '_compiled_call_impl', None)",
        "layer.__class__ = Other",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert list(foreign_private_names(source, own_private_names()))
