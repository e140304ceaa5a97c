"""Training pairs from apt's package lists: short and long description of each package.

The long descriptions are in apt's `Translation-LANGUAGE` files (Debian Wiki, DebianRepository/Format). Container images
omit these. Then apt fetches them from the machine's own package sources into a folder in our cache; the system is not
changed.
"""

import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from gemma4vec.data.rows.records import Record
from gemma4vec.errors import InputError
from gemma4vec.files import cache

logger = logging.getLogger(__name__)

LISTS = Path("/var/lib/apt/lists")
HELPER = Path("/usr/lib/apt/apt-helper")
FETCH_SECONDS = 300


def find_description_files(language: str, folder: Path | None) -> list[Path]:
    """apt's files with descriptions in a language, in a fixed order: those of `folder`, of the machine, or fetched.

    Raises:
        InputError: there are none, and apt cannot fetch any.
    """
    if not language.replace("_", "").isalpha():
        raise InputError(f"data: {language!r} is not a language code; use one such as en, de or pt_BR")
    if folder is not None:
        found = _files(folder, language)
        if not found:
            raise InputError(
                f"{folder}: no Translation-{language} file of apt; set path to the folder that has them, or remove it"
            )
        return found
    own = cache() / "apt" / "lists"
    return _files(LISTS, language) or _files(own, language) or _fetch(own, language)


def debian_records(files: list[Path], language: str) -> Iterator[Record]:
    """One record for each package with both descriptions, sorted by name; of several versions the first file's.

    The query is the short description, the positive is the long one, and its title is the package's name. Packages
    built from one source often share a pair of texts, which is yielded once.

    Raises:
        InputError: a file cannot be read.
    """
    packages: dict[str, tuple[str, int, str, str]] = {}
    for file in files:
        for number, fields in _paragraphs(file):
            short, long = _description(fields.get(f"Description-{language}", ""))
            if short and long:
                packages.setdefault(fields.get("Package", ""), (str(file), number, short, long))
    seen: set[tuple[str, str]] = set()
    for name in sorted(packages):
        place, number, short, long = packages[name]
        if (short, long) not in seen:
            seen.add((short, long))
            value = {"query": short, "pos": [{"text": long, "title": name}]}
            yield Record(place, number, value, unit="package")


def _files(folder: Path, language: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.name.partition("_Translation-")[2].split(".")[0] == language
    )


def _fetch(folder: Path, language: str) -> list[Path]:
    why = f"data: this machine has no apt descriptions in {language!r}"
    if shutil.which("apt-get") is None:
        raise InputError(f"{why} and no apt-get; use a Debian or Ubuntu machine, or set path to a folder of its lists")
    logger.info(f"debian: fetching descriptions in {language!r} with apt-get into {folder}")
    (folder / "partial").mkdir(parents=True, exist_ok=True)
    languages = sorted({language, *_languages(folder)})
    settings = [
        f"Dir::State::lists={folder}",
        f"Dir::Cache={folder.parent / 'cache'}",
        "Debug::NoLocking=1",
        "APT::Sandbox::User=",
        "Acquire::Languages=",  # clears the list: container settings have "none", which takes precedence
        *(f"Acquire::Languages::={one}" for one in languages),
    ]
    command = ["apt-get", *(part for setting in settings for part in ("-o", setting)), "update"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{why}, and apt-get could not fetch them ({error}); check the network") from error
    found = _files(folder, language)
    if not found:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.startswith(("E:", "W:"))), "")
        raise InputError(
            f"{why}, and apt-get fetched none ({last or 'its sources have none'}); check the language and the network"
        )
    return found


def _languages(folder: Path) -> set[str]:
    """Languages fetched before; an update that does not name them removes them."""
    names = (file.name.partition("_Translation-")[2].split(".")[0] for file in folder.iterdir())
    return {name for name in names if name}


def _paragraphs(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number, from 1, and fields of each paragraph of a control file; continuation lines keep their first space."""
    fields: dict[str, str] = {}
    number, name = 1, ""
    for line in [*_text(file).split("\n"), ""]:
        if not line:
            if fields:
                yield number, fields
                number += 1
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()


def _text(file: Path) -> str:
    """The file's text; apt's helper decompresses it (lz4, xz, zst, gz)."""
    try:
        if file.name.partition("_Translation-")[2].isalpha():
            return file.read_bytes().decode("utf-8", errors="replace")
        done = subprocess.run([str(HELPER), "cat-file", str(file)], capture_output=True, check=False)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from error
    if done.returncode:
        reason = " ".join(done.stderr.decode("utf-8", errors="replace").split())[:200]
        raise InputError(f"{file}: apt cannot read it ({reason}); run apt-get update")
    return done.stdout.decode("utf-8", errors="replace")


def _description(field: str) -> tuple[str, str]:
    """Short and long description. A line ` .` is blank; a line with two leading spaces is verbatim (lists)."""
    short, *rest = field.split("\n")
    paragraphs: list[list[str]] = [[]]
    for line in rest:
        if line.strip() == ".":
            paragraphs.append([])
        elif line.startswith("  ") and paragraphs[-1]:
            paragraphs[-1].append("\n" + line.strip())
        else:
            paragraphs[-1].append(line.strip())
    joined = ("".join(part if part[0] == "\n" else " " + part for part in lines if part) for lines in paragraphs)
    return short.strip(), "\n\n".join(text.strip() for text in joined if text.strip())
