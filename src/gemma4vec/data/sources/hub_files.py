"""Files of a hub data set: those of one subset and split at one commit, downloaded once.

Each file is read on its own, because the files of one split can have different columns (F2LLM). The choice is stored,
so that a commit that was downloaded once needs no hub.
"""

import logging
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from gemma4vec.data.sources.splits import files_of_split, is_readable
from gemma4vec.errors import InputError
from gemma4vec.files import cache, optional_file, sha256_text, write_json
from gemma4vec.machine.hub_errors import explain_hub_error
from gemma4vec.machine.network import ping_hub
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.reading.yaml_values import YamlError, loads_yaml

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 4.0
COMMIT = re.compile(r"[0-9a-f]{40}")
README = "README.md"


class HubFiles(NamedTuple):
    """The commit of a data set and its local files; no files if the `datasets` library must read it."""

    commit: str
    files: tuple[Path, ...]


def hub_files(name: str, subset: str | None, split: str) -> HubFiles:
    """The files of a hub data set; downloads files that are not cached.

    Args:
        name: `owner/name`, optionally with `@revision` (a commit, tag or branch).
        subset: the configuration; None if there is only one.
        split: name of the split.

    Raises:
        InputError: the hub is out of reach and the files are not cached; there is no such data set, subset or split; or
            access is restricted.
    """
    repository, _, revision = name.partition("@")
    note = cache() / "hub" / f"{sha256_text(name, str(subset), split)[:24]}.json"
    known = _read_note(note)
    if known is not None and COMMIT.fullmatch(revision):
        return known
    state = ping_hub(ANSWER_SECONDS)
    if not state.reachable:
        if known is None:
            raise InputError(
                f"data: the data set {name} is not cached on this machine and the hub is out of reach: {state.reason}; "
                "set path to a folder with its files"
            )
        logger.warning(
            f"{name}: the hub is out of reach ({state.reason}); using commit {known.commit[:12]} from the cache"
        )
        return known
    try:
        return _fetch(repository, revision or None, subset, split, note)
    except InputError:
        raise
    except Exception as error:  # the hub's client raises many types
        raise InputError(
            f"data: the data set {name} cannot be downloaded from the hub: {explain_hub_error(error, 'data set')}"
        ) from error


def _read_note(note: Path) -> HubFiles | None:
    """The stored choice; None if any of its files is missing."""
    try:
        stored = load_own_json(note)
        found = HubFiles(str(stored["commit"]), tuple(map(Path, stored["files"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if all(file.is_file() for file in found.files) else None


def _fetch(repository: str, revision: str | None, subset: str | None, split: str, note: Path) -> HubFiles:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    info = HfApi().dataset_info(repository, revision=revision, timeout=10 * ANSWER_SECONDS)
    names = sorted(one.rfilename for one in info.siblings or [])
    commit = str(info.sha)
    readme = ""
    if README in names:
        file = hf_hub_download(repository, README, repo_type="dataset", revision=commit)
        readme = Path(file).read_text(encoding="utf-8", errors="replace")
    chosen = choose_files(repository, names, readme, subset, split)
    folder = Path()
    if chosen:
        logger.info(f"{repository}: {len(chosen)} files of commit {commit[:12]}")
        # The library expects patterns, so escape special characters in names.
        wanted = [re.sub(r"([*?\[])", r"[\1]", name) for name in chosen]
        folder = Path(snapshot_download(repository, repo_type="dataset", revision=commit, allow_patterns=wanted))
    found = HubFiles(commit, tuple(folder / name for name in chosen))
    with optional_file("notes on data files"):
        write_json(note, {"commit": commit, "files": list(map(str, found.files)), "of": repository})
    return found


def choose_files(where: str, names: Sequence[str], readme: str, subset: str | None, split: str) -> list[str]:
    """The files of a subset and split among a repository's; empty if their kinds are not ours to read.

    The configurations in README.md decide. Without any, a subset is a folder or a file's name, and a split is part of a
    file's name.

    Raises:
        InputError: no such subset or split, or several subsets and `subset` is None.
    """
    configs = _configs(readme)
    if not configs:
        paths = [PurePosixPath(name) for name in names if is_readable(name)]
        inside = [path for path in paths if subset in (None, path.parts[0], path.name.split(".")[0])]
        if paths and not inside:
            raise InputError(f"data: {where} has no folder or file of the subset {subset!r}; {_list_subsets(paths)}")
        return [str(path) for path in files_of_split(where, inside, split)]
    config = _config(where, configs, subset)
    splits = _splits(config.get("data_files"))
    if not splits:  # a folder or no files: left to the library
        return []
    if split not in splits:
        raise InputError(f"data: {where} has no split {split!r}; it has {', '.join(splits)}; set the source's split")
    base = str(config.get("data_dir") or "").strip("/")
    patterns = [f"{base}/{pattern}" if base else pattern for pattern in splits[split]]
    found = [name for name in names if any(fnmatch(name, pattern.removeprefix("./")) for pattern in patterns)]
    return found if all(map(is_readable, found)) else []


def _configs(readme: str) -> list[dict[str, Any]]:
    """The configurations in the YAML front matter of README.md."""
    parts = readme.split("---", 2)
    try:
        front = loads_yaml(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except YamlError:
        return []
    configs = front.get("configs") if isinstance(front, dict) else None
    return [one for one in configs or [] if isinstance(one, dict) and isinstance(one.get("config_name"), str)]


def _config(where: str, configs: list[dict[str, Any]], subset: str | None) -> dict[str, Any]:
    by_name = {one["config_name"]: one for one in configs}
    shown = ", ".join(list(by_name)[:20])
    if subset is None:
        marked = [one for one in configs if one.get("default") or one["config_name"] == "default"]
        if len(by_name) > 1 and not marked:
            raise InputError(f"data: {where} has several subsets; name one as the source's subset: {shown}")
        return (marked or configs)[0]
    if subset not in by_name:
        raise InputError(f"data: {where} has no subset {subset!r}; it has {shown}")
    return by_name[subset]


def _splits(data_files: Any) -> dict[str, list[str]]:
    """Split -> file name patterns; files without a split belong to the training split."""
    if isinstance(data_files, str) or (isinstance(data_files, list) and data_files and isinstance(data_files[0], str)):
        return {"train": [data_files] if isinstance(data_files, str) else data_files}
    found: dict[str, list[str]] = {}
    for one in data_files if isinstance(data_files, list) else []:
        if isinstance(one, dict) and "path" in one:
            paths = one["path"] if isinstance(one["path"], list) else [one["path"]]
            found.setdefault(str(one.get("split", "train")), []).extend(map(str, paths))
    return found


def _list_subsets(paths: Sequence[PurePosixPath]) -> str:
    parts = list(dict.fromkeys(path.parts[0].split(".")[0] for path in paths))
    return f"it has {', '.join(parts[:20])}"
