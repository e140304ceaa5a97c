"""Files of a hub's data set: those of one subset and split, at one commit, downloaded once.

They are read as they are, file by file, so that those of one split may have different columns, as F2LLM's have. What
was chosen is noted, and a commit that was fetched once is read without asking the hub.
"""

import json
import logging
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from gemma4vec.data.sources.splits import files_of_split, readable
from gemma4vec.errors import InputError
from gemma4vec.files import cache, sha256_text, write_json
from gemma4vec.machine.hub_errors import explain_hub_error
from gemma4vec.machine.network import ping_hub

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 4.0
COMMIT = re.compile(r"[0-9a-f]{40}")
README = "README.md"


class HubFiles(NamedTuple):
    """The commit of a data set and its files on this disk; none where the `datasets` library has to read it."""

    commit: str
    files: tuple[Path, ...]


def hub_files(name: str, subset: str | None, split: str) -> HubFiles:
    """The files of a hub's data set; downloads what is not cached.

    Args:
        name: `owner/name`, with `@revision` (a commit, a tag, a branch) if wanted.
        subset: the configuration, None where there is one only.
        split: which split.

    Raises:
        InputError: out of reach and not cached, no such data set, subset or split, or access is restricted.
    """
    repository, _, revision = name.partition("@")
    note = cache() / "hub" / f"{sha256_text(name, str(subset), split)[:24]}.json"
    known = _known(note)
    if known is not None and COMMIT.fullmatch(revision):
        return known
    state = ping_hub(ANSWER_SECONDS)
    if not state.reachable:
        if known is None:
            raise InputError(
                f"data: the data set {name} is not cached on this machine and the hub is out of reach: {state.reason}; "
                "give a folder with its files as path"
            )
        logger.warning(
            f"{name}: the hub is out of reach ({state.reason}); using commit {known.commit[:12]} from the cache"
        )
        return known
    try:
        return _fetched(repository, revision or None, subset, split, note)
    except InputError:
        raise
    except Exception as error:  # the hub's client raises whatever it likes
        raise InputError(
            f"data: the data set {name} cannot be had from the hub: {explain_hub_error(error, 'data set')}"
        ) from error


def _known(note: Path) -> HubFiles | None:
    """What was chosen before, if all of it is still there."""
    try:
        told = json.loads(note.read_text(encoding="utf-8"))
        found = HubFiles(str(told["commit"]), tuple(map(Path, told["files"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if all(file.is_file() for file in found.files) else None


def _fetched(repository: str, revision: str | None, subset: str | None, split: str, note: Path) -> HubFiles:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    info = HfApi().dataset_info(repository, revision=revision, timeout=10 * ANSWER_SECONDS)
    names = sorted(one.rfilename for one in info.siblings or [])
    commit = str(info.sha)
    readme = ""
    if README in names:
        file = hf_hub_download(repository, README, repo_type="dataset", revision=commit)
        readme = Path(file).read_text(encoding="utf-8", errors="replace")
    chosen = chosen_files(repository, names, readme, subset, split)
    folder = Path()
    if chosen:
        logger.info(f"{repository}: {len(chosen)} files of commit {commit[:12]}")
        # Names, not patterns: brackets in a name would mean something.
        wanted = [re.sub(r"([*?\[])", r"[\1]", name) for name in chosen]
        folder = Path(snapshot_download(repository, repo_type="dataset", revision=commit, allow_patterns=wanted))
    found = HubFiles(commit, tuple(folder / name for name in chosen))
    write_json(note, {"commit": commit, "files": list(map(str, found.files)), "of": repository})
    return found


def chosen_files(where: str, names: Sequence[str], readme: str, subset: str | None, split: str) -> list[str]:
    """The files of a subset and split among a repository's; empty where they are of kinds that we do not read.

    What README.md says of its configurations is followed. Without that, a subset is a folder or the name of a file, and
    files are of the split that they are named after.

    Raises:
        InputError: no such subset or split, or several subsets and none is named.
    """
    configs = _configs(readme)
    if not configs:
        paths = [PurePosixPath(name) for name in names if readable(name)]
        inside = [path for path in paths if subset in (None, path.parts[0], path.name.split(".")[0])]
        if paths and not inside:
            raise InputError(f"data: {where} has no folder or file of the subset {subset!r}; {_some(paths)}")
        return [str(path) for path in files_of_split(where, inside, split)]
    told = _config(where, configs, subset)
    splits = _splits(told.get("data_files"))
    if not splits:  # a folder, or nothing: for the library
        return []
    if split not in splits:
        raise InputError(f"data: {where} has no split {split!r}; it has {', '.join(splits)}; set the source's split")
    base = str(told.get("data_dir") or "").strip("/")
    patterns = [f"{base}/{pattern}" if base else pattern for pattern in splits[split]]
    found = [name for name in names if any(fnmatch(name, pattern.removeprefix("./")) for pattern in patterns)]
    return found if all(map(readable, found)) else []


def _configs(readme: str) -> list[dict[str, Any]]:
    """The configurations in the front matter of README.md."""
    parts = readme.split("---", 2)
    try:
        front = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except yaml.YAMLError:
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


def _splits(told: Any) -> dict[str, list[str]]:
    """Split -> patterns; files without a split are the training split."""
    if isinstance(told, str) or (isinstance(told, list) and told and isinstance(told[0], str)):
        return {"train": [told] if isinstance(told, str) else told}
    found: dict[str, list[str]] = {}
    for one in told if isinstance(told, list) else []:
        if isinstance(one, dict) and "path" in one:
            paths = one["path"] if isinstance(one["path"], list) else [one["path"]]
            found.setdefault(str(one.get("split", "train")), []).extend(map(str, paths))
    return found


def _some(paths: Sequence[PurePosixPath]) -> str:
    parts = list(dict.fromkeys(path.parts[0].split(".")[0] for path in paths))
    return f"it has {', '.join(parts[:20])}"
