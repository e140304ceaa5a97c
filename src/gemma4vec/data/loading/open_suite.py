"""A suite from the argument of `--suite`.

It is a name (`nanobeir`, `germandpr`, `pycode`; `data.suites.catalog`), a folder in BEIR's layout, a YAML file (or a
folder's suite.yaml) with a list of suites, a TSV of sentence pairs (`file.tsv@split`), or rows: `rows.jsonl` and
`local-rank:rows.jsonl` are a local rank test, `loss:rows.jsonl` is validation loss.
"""

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gemma4vec.data.pycode.build import load_or_build_pycode
from gemma4vec.data.suites.catalog import CATALOG
from gemma4vec.data.suites.group import AnySuite, OneSuite, SuiteGroup, make_group
from gemma4vec.data.suites.held_out_rows import BLOCK, TEMPERATURE, load_row_suite
from gemma4vec.data.suites.hub import open_catalog_suite
from gemma4vec.data.suites.hub_tables import find_mirror
from gemma4vec.data.suites.kinds import ROW_KINDS, Kind, Role, resolve_role
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.data.suites.sts import StsSuite, load_sts
from gemma4vec.errors import InputError
from gemma4vec.reading.names import as_name, check_name
from gemma4vec.reading.yaml_values import parse_yaml, read_text
from gemma4vec.recipe.load import validate
from gemma4vec.recipe.part import Part

OWN_NAMES = ("pycode", "pycode-dev")


class Member(Part):
    """One suite in a list."""

    suite: str = Field(description="any argument of --suite; paths are relative to this file")
    name: str | None = None
    role: Role | None = None
    kind: Kind | None = Field(None, description="of rows: local-rank or loss; of a folder: compact-retrieval")
    metric: str | None = None
    split: str | None = Field(None, description="of a TSV of sentence pairs")
    max_queries: int | None = Field(None, ge=1)
    max_documents: int | None = Field(None, ge=1)
    max_rows: int | None = Field(None, ge=1)
    temperature: float = Field(TEMPERATURE, gt=0)
    block: int = Field(BLOCK, ge=2)


class RunComparison(Part):
    """A YAML file with a list of suites."""

    name: str | None = None
    role: Role | None = None
    metric: str | None = None
    suites: Annotated[tuple[Member, ...], Field(min_length=1)]


def open_suite(spec: str, *, role: Role | None = None, mirror: Path | None = None) -> AnySuite:
    """The suite that `spec` means.

    Args:
        spec: the argument of `--suite`.
        role: the role, if the suite has none itself.
        mirror: local folder of hub data sets; by default `$GEMMA4VEC_MIRROR`.

    Raises:
        InputError: there is no such suite, or its files are malformed.
    """
    suite = _open(Member(suite=spec), Path(), mirror)
    return replace(suite, role=resolve_role(suite.role, role, suite.name))


def absolute_spec(spec: str) -> str:
    """The spec with its path as an absolute one, so that it opens from every folder; a name stays as it is."""
    kind, rest = _kind_and_rest(spec)
    where, at, split = rest.rpartition("@")
    for path, end in ((rest, ""), (where, at + split)):
        if path and Path(path).expanduser().exists():
            return f"{f'{kind}:' if kind else ''}{Path(path).expanduser().absolute()}{end}"
    return spec


def _open(member: Member, parent: Path, mirror: Path | None) -> AnySuite:
    """Open a member of a list, or a whole argument; paths are relative to `parent`."""
    kind, spec = _kind_and_rest(member.suite)
    if spec.startswith("mteb:"):
        raise InputError(f"{spec}: a list cannot have a task of mteb; run gemma4vec eval MODEL --suite {spec}")
    path = parent / Path(spec).expanduser()
    if kind is not None or spec.removesuffix(".gz").removesuffix(".zst").endswith(".jsonl"):
        return _rows(member, kind, path)
    where, _, split = spec.rpartition("@")
    if where and not path.exists():
        path, member = parent / Path(where).expanduser(), member.model_copy(update={"split": split})
    if path.name.removesuffix(".gz").endswith(".tsv"):
        return _pairs(member, path)
    if path.suffix in (".yaml", ".yml") or _names_several(path):
        return open_several(path, mirror=mirror)
    if path.is_dir() or Path(spec).expanduser().is_absolute():
        return _adjusted(load_suite(path), member)
    return _adjusted(_named(spec, mirror), member)


def _kind_and_rest(spec: str) -> tuple[Kind | None, str]:
    """Split `loss:rows.jsonl` into (loss, rows.jsonl)."""
    start, colon, rest = spec.partition(":")
    return next(((kind, rest) for kind in ROW_KINDS if colon and start == kind), (None, spec))


def _rows(member: Member, kind: Kind | None, path: Path) -> AnySuite:
    chosen = kind or member.kind or "local-rank"
    if chosen not in ROW_KINDS:
        raise InputError(f"{path}: rows are evaluated as {' or '.join(ROW_KINDS)}, not as {chosen}")
    suite = load_row_suite(path, chosen, temperature=member.temperature, block=member.block, max_rows=member.max_rows)
    return _adjusted(suite, member)


def _pairs(member: Member, path: Path) -> StsSuite:
    return _adjusted(load_sts(path, member.split), member)


def _named(spec: str, mirror: Path | None) -> AnySuite:
    """A suite of the catalog, or of this machine's code."""
    if spec in CATALOG:
        return open_catalog_suite(CATALOG[spec], mirror=find_mirror(mirror))
    if spec in OWN_NAMES:
        built = load_or_build_pycode()
        folder = built.test if spec == "pycode" else built.dev
        if folder is None:
            raise InputError("pycode-dev: too little code on this machine for a dev suite; use pycode")
        return load_suite(folder)
    names = [*CATALOG, *OWN_NAMES]
    close = difflib.get_close_matches(spec, names, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else f"names are {', '.join(names)} and mteb:TASK"
    raise InputError(f"no suite '{spec}': not a folder in BEIR's layout, nor a .tsv, .jsonl or .yaml file; {hint}")


def _adjusted(suite: Any, member: Member) -> Any:
    """A suite with the options that a list sets for it."""
    if isinstance(suite, RetrievalSuite):
        if member.max_queries is not None or member.max_documents is not None:
            suite = sample_suite(suite, member.max_queries, member.max_documents)
        if member.kind == "compact-retrieval":
            suite = replace(suite, kind="compact-retrieval")
    return replace(
        suite,
        name=member.name or suite.name,
        role=resolve_role(suite.role, member.role, suite.name),
        metric=member.metric or suite.metric,
    )


def _refuse_idle(member: Member, opened: AnySuite, where: str) -> None:
    """Refuse options that do not apply to this kind of suite, instead of ignoring them."""
    idle = next((key for key in Member.model_fields if key in member.model_fields_set - opened.options), None)
    if idle is not None:
        what = "a list of suites" if isinstance(opened, SuiteGroup) else opened.kind
        raise InputError(f"{where}: {idle} does not apply to {what}; remove it")
    if member.kind is not None and member.kind != opened.kind:
        raise InputError(f"{where}: it is {opened.kind}, not {member.kind}; remove kind")


def _names_several(path: Path) -> bool:
    file = path / "suite.yaml"
    return file.is_file() and not (path / "corpus.jsonl").exists() and not (path / "corpus.jsonl.gz").exists()


def open_several(path: Path, *, mirror: Path | None = None) -> SuiteGroup:
    """The suites in a YAML file (or a folder's suite.yaml) as one group.

    Raises:
        InputError: the file is malformed, or a member cannot be opened or grouped with the others.
    """
    file = path / "suite.yaml" if path.is_dir() else path
    tree = parse_yaml(read_text(file, "list of suites"), str(file))
    if not isinstance(tree, dict) or not isinstance(tree.get("suites"), list):
        raise InputError(f"{file}: the key `suites` must be a list of suites; see docs/guides/evaluation.md")
    named = [{"suite": one} if isinstance(one, str) else one for one in tree["suites"]]
    listed = validate(RunComparison, {**tree, "suites": named}, str(file))
    for given in (listed.name, *(member.name for member in listed.suites)):
        if given is not None:
            check_name(given, str(file))
    members: list[OneSuite] = []
    for member in listed.suites:
        opened = _open(member, file.parent, mirror)
        _refuse_idle(member, opened, f"{file}: {member.suite}")
        role = member.role or opened.role  # a final suite remains final inside another list
        members += [replace(one, role=resolve_role(one.role, role, one.name)) for one in opened.members]
    name = listed.name or as_name(path.resolve().name if path.is_dir() else file.stem)
    return make_group(name, members, listed.role, listed.metric)
