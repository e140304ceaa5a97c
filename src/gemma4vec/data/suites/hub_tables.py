"""Read tables of a hub data set at one revision: from a mirror on disk, from the hub's cache, or from the hub.

A mirror is a folder of `owner/name` folders as `hf download --repo-type dataset owner/name --local-dir ...` creates
them. The data set's README defines its configurations; if it does not, the usual layouts are tried.
"""

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gemma4vec.data.rows.jsonl import read_lines
from gemma4vec.data.sources.splits import SPLIT_OF_WORD
from gemma4vec.data.suites.memory_check import check_corpus_fits
from gemma4vec.errors import InputError
from gemma4vec.machine.network import ping_hub
from gemma4vec.reading.yaml_values import YamlError, loads_yaml

logger = logging.getLogger(__name__)

MIRROR = "GEMMA4VEC_MIRROR"
_ANSWER_SECONDS = 4.0
_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")


class DatasetFolder(NamedTuple):
    """A data set on this disk; `revision` is its commit if known."""

    path: Path
    revision: str | None


def find_mirror(named: Path | None) -> Path | None:
    """Return the given mirror, else that of `$GEMMA4VEC_MIRROR`, else None.

    Raises:
        InputError: the folder does not exist.
    """
    chosen = named or (Path(os.environ[MIRROR]) if os.environ.get(MIRROR) else None)
    if chosen is not None and not chosen.is_dir():
        raise InputError(f"the mirror {chosen} is not a folder; correct --mirror or {MIRROR}")
    return chosen


def fetch_dataset(repository: str, revision: str, configs: Sequence[str], *, mirror: Path | None) -> DatasetFolder:
    """Return the folder with these configurations of a data set at this revision; download what is not cached.

    Raises:
        InputError: the data set is neither mirrored nor cached and the hub is unreachable, or the mirror has another
            revision.
    """
    if mirror is not None:
        found = _find_in_mirror(repository, revision, mirror)
        if found is not None:
            return found
    patterns = ["README.md", *(f"{config}/*" for config in configs), "data/*", *(f"*{end}" for end in _SUFFIXES)]
    cached = _fetch_snapshot(repository, revision, patterns, only_local=True)
    if isinstance(cached, Path) and all(has_config(cached, config) for config in configs):
        return DatasetFolder(cached, cached.name)
    state = ping_hub(_ANSWER_SECONDS)
    if not state.reachable:
        raise InputError(
            f"the data set {repository} is not cached on this machine and the hub is unreachable ({state.reason}); "
            f"put a copy into a folder as OWNER/NAME and pass that folder with --mirror or {MIRROR}"
        )
    logger.info(f"downloading the data set {repository}")
    fetched = _fetch_snapshot(repository, revision, patterns, only_local=False)
    if isinstance(fetched, Path):
        # Only the README knows the place of some files: fetch the paths that it names.
        missing = [config for config in configs if not has_config(fetched, config)]
        paths = [path for config in missing for path in _readme_paths(fetched, config)]
        fetched = _fetch_snapshot(repository, revision, ["README.md", *paths], only_local=False) if paths else fetched
    if isinstance(fetched, Path):
        return DatasetFolder(fetched, fetched.name)
    raise InputError(
        f"the data set {repository} cannot be downloaded from the hub: {' '.join(str(fetched).split())[:300]}"
    )


def _find_in_mirror(repository: str, revision: str, mirror: Path) -> DatasetFolder | None:
    """Return the mirror's copy of a data set, whose revision must be the requested one or unknown."""
    folder = mirror / repository
    if not folder.is_dir():
        return None
    notes = sorted((folder / ".cache" / "huggingface" / "download").rglob("*.metadata"))
    contents = [note.read_text(encoding="utf-8", errors="replace").splitlines() for note in notes]
    known = {lines[0].strip() for lines in contents if lines}
    if known - {revision}:
        raise InputError(
            f"{folder} was downloaded at revision {sorted(known - {revision})[0][:12]}, {revision[:12]} is needed; "
            f"hf download --repo-type dataset {repository} --revision {revision} --local-dir {folder}"
        )
    return DatasetFolder(folder, revision if known else None)


def has_config(folder: Path, config: str) -> bool:
    """Return whether the folder has files of a configuration."""
    return bool(_files_by_split(folder, config))


def read_table(folder: Path, config: str, split: str) -> list[dict[str, Any]]:
    """Read the rows of one split of one configuration; if its only split has no known name, read that one.

    Raises:
        InputError: the configuration or split does not exist, a file cannot be read, or the rows do not fit into
            memory.
    """
    files = _files_by_split(folder, config)
    if not files:
        raise InputError(f"{folder}: no table {config!r}; {config}/{split}*.parquet is needed")
    chosen = files.get(split)
    if chosen is None and len(files) == 1:
        ((only, single),) = files.items()  # some tables have one split named after the table; train is not test
        chosen = single if SPLIT_OF_WORD.get(only) in (None, SPLIT_OF_WORD.get(split)) else None
    if chosen is None:
        raise InputError(f"{folder}: {config} has no split {split!r}; it has {', '.join(sorted(files))}")
    check_corpus_fits(chosen)
    return [row for file in chosen for row in _read_file(file)]


def _files_by_split(folder: Path, config: str) -> dict[str, list[Path]]:
    """Return split -> files of a configuration."""
    named = _readme_files_by_split(folder, config)
    if named:
        return named
    places = [folder / config, *([folder / "data", folder] if config == "default" else [])]
    for place in places:
        found: dict[str, list[Path]] = {}
        for file in sorted(place.glob("*")) if place.is_dir() else []:
            if file.name.endswith(_SUFFIXES):
                found.setdefault(_split_of(file), []).append(file)
        if found:
            return found
    single = [folder / f"{config}{suffix}" for suffix in _SUFFIXES]
    return next(({"all": [file]} for file in single if file.is_file()), {})


def _split_of(file: Path) -> str:
    """`train-00000-of-00001.parquet` -> `train`."""
    stem = next(file.name.removesuffix(suffix) for suffix in _SUFFIXES if file.name.endswith(suffix))
    return stem.split("-00")[0]


def _readme_files_by_split(folder: Path, config: str) -> dict[str, list[Path]]:
    """Return split -> existing files that README.md's front matter names."""
    named = {split: _glob(folder, paths) for split, paths in _readme_data_files(folder, config).items()}
    return {split: files for split, files in named.items() if files}


def _readme_data_files(folder: Path, config: str) -> dict[str, list[str]]:
    """Return split -> paths or patterns that README.md's front matter lists for a configuration."""
    readme = folder / "README.md"
    parts = readme.read_text(encoding="utf-8", errors="replace").split("---", 2) if readme.is_file() else []
    try:
        front = loads_yaml(parts[1]) if len(parts) == 3 else None
    except YamlError:
        return {}
    configs = front.get("configs") if isinstance(front, dict) else None
    for one in configs if isinstance(configs, list) else []:
        if isinstance(one, dict) and one.get("config_name") == config:
            data = one.get("data_files") or []
            entries = [{"split": "all", "path": data}] if isinstance(data, str) else data
            return {
                str(entry["split"]): [entry["path"]] if isinstance(entry["path"], str) else list(entry["path"])
                for entry in entries
                if isinstance(entry, dict) and "split" in entry and "path" in entry
            }
    return {}


def _readme_paths(folder: Path, config: str) -> list[str]:
    return [path for paths in _readme_data_files(folder, config).values() for path in paths]


def _glob(folder: Path, paths: list[str]) -> list[Path]:
    """The files in `folder` that a README names; a path that leads out of it names none."""
    found: list[Path] = []
    for path in paths:
        if ".." not in Path(path).parts:
            with contextlib.suppress(ValueError, NotImplementedError):  # an empty or absolute path
                found += sorted(folder.glob(path))
    return found


def _read_file(file: Path) -> list[dict[str, Any]]:
    if file.suffix != ".parquet":
        rows = []
        for number, value, reason in read_lines(file):
            if value is None:
                raise InputError(f"{file} line {number}: {reason}")
            rows.append(value)
        return rows
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(file.absolute()).names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{file}: two columns are called {twice!r}; give each its own name")
        return pq.read_table(file.absolute()).to_pylist()
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(f"{file} is damaged ({' '.join(str(error).split())[:200]}); download it again") from error


def _fetch_snapshot(repository: str, revision: str, patterns: list[str], *, only_local: bool) -> Path | Exception:
    """Return the folder of the hub's snapshot, or the error that prevented it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, RevisionResolutionError

    try:
        return Path(
            snapshot_download(
                repository,
                repo_type="dataset",
                revision=revision,
                allow_patterns=patterns,
                local_files_only=only_local,
                etag_timeout=_ANSWER_SECONDS,
            )
        )
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError, RevisionResolutionError, OSError) as error:
        return error
