"""Package lists as pairs: read from apt's own files, and one line where there are none."""

import subprocess
from pathlib import Path

import pytest

from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.sources import debian
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import source_of

LISTS = """Package: b-tool
Description-md5: 1
Description-de: Werkzeug für B
 Erste Zeile
 und zweite.
 .
 Liste:
  * eins
  * zwei

Package: a-tool
Description-md5: 2
Description-de: Werkzeug für A
 Was es tut.

Package: a-tool-doc
Description-de: Werkzeug für A
 Was es tut.

Package: short
Description-de: Nur kurz
"""


def read(folder: Path | None, language: str = "de") -> object:
    source = source_of(name="d", source="debian", path=str(folder) if folder else None, language=language)
    return load_sources([source]).rows


def test_short_and_long_descriptions_are_pairs(tmp_path: Path) -> None:
    (tmp_path / "mirror_dists_x_main_i18n_Translation-de").write_text(LISTS, encoding="utf-8")
    found = [(row.query, row.pos[0].text, row.pos[0].title) for row in read(tmp_path)]
    assert found == [
        ("Werkzeug für A", "Was es tut.", "a-tool"),
        ("Werkzeug für B", "Erste Zeile und zweite.\n\nListe:\n* eins\n* zwei", "b-tool"),
    ]


def test_the_first_file_decides_between_versions(tmp_path: Path) -> None:
    for name, long in (("a", "newer"), ("b", "older")):
        (tmp_path / f"{name}_Translation-en").write_text(f"Package: p\nDescription-en: short\n {long}\n")
    assert [row.pos[0].text for row in read(tmp_path, "en")] == ["newer"]


def test_no_lists_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no Translation-de file of apt"):
        read(tmp_path)
    monkeypatch.setattr(debian, "LISTS", tmp_path / "none")
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="no apt descriptions in 'de' and no apt-get; use a Debian"):
        read(None)
    with pytest.raises(InputError, match=r"'\.\./de' is not a language code"):
        read(None, "../de")


def test_apt_is_asked_for_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def fetch(command: list[str], **settings: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        folder = Path(next(part for part in command if part.startswith("Dir::State::lists=")).partition("=")[2])
        if len(asked) > 1:
            (folder / "m_Translation-de").write_text(LISTS, encoding="utf-8")
        return subprocess.CompletedProcess(command, 100, "", "E: no network\n")

    monkeypatch.setattr(debian, "LISTS", tmp_path / "none")
    monkeypatch.setattr(debian.shutil, "which", lambda name: "/usr/bin/apt-get")
    monkeypatch.setattr(debian.subprocess, "run", fetch)
    with pytest.raises(InputError, match=r"apt-get fetched none \(E: no network\)"):
        read(None)
    assert len(read(None)) == 2 and "Acquire::Languages::=de" in asked[1]
    read(None)
    assert len(asked) == 2  # what was fetched is used again
