"""A base's config and tokenizer, and where its weights would come from: nothing of them is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gemma4vec.machine.hub import fetch_description, is_hub_id
from gemma4vec.model.bases.bundled import bundled_base, cached_folder, description, is_cached
from gemma4vec.model.bases.resolve import check_model_folder, resolve_base


@dataclass(frozen=True)
class BaseFiles:
    """What a dry run needs of a base.

    Attributes:
        path: folder with config.json and the tokenizer.
        ready: whether its weights are on this machine.
        state: in words, what a real run would do to get them.
        weight_bytes: size of the weights' files; None where nobody knows.
    """

    path: Path
    ready: bool
    state: str
    weight_bytes: int | None


@contextmanager
def base_files(name: str, key: str = "model.base") -> Iterator[BaseFiles]:
    """The description of a base, or of another model that `key` names; a folder that had to be made for it goes when
    this closes.

    Raises:
        InputError: as `model.bases.resolve.resolve_base`.
    """
    name = name.strip()
    bundled = bundled_base(name)
    if bundled is not None and not is_cached(bundled):
        with description(bundled) as folder:
            state = f"installed, not unpacked: a run unpacks it into {cached_folder(bundled)} (once, about 10 seconds)"
            yield BaseFiles(folder, False, state, bundled.cached_bytes)
        return
    folder_given = Path(name).expanduser()
    if bundled is None and not folder_given.exists() and is_hub_id(name):
        path, ready, size = fetch_description(name, key=key)
        if ready:
            check_model_folder(path)
        yield BaseFiles(path, ready, "cached" if ready else "not cached: a run downloads its weights", size)
        return
    if (folder_given / "config.json").is_file() and not _weights(folder_given):
        yield BaseFiles(folder_given, False, "config only: a run refuses this folder until its weights are there", None)
        return
    path = resolve_base(name).path
    yield BaseFiles(path, True, f"ready in {path}", sum(file.stat().st_size for file in _weights(path)))


def _weights(folder: Path) -> list[Path]:
    return [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
