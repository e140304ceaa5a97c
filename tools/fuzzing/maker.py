"""Makes an input of a kind: one odd file or command line, and the command that meets it."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from fuzzing import odd_files, odd_words
from fuzzing.inputs import Change, Input
from fuzzing.kinds import KINDS, Words
from fuzzing.sandbox import Sandbox

# (how a file's name begins or ends, the kind of its source, the source's path if it is not the file).
_SOURCES: Final = (
    ("tables/hub/", "datasets", "tables/hub"),
    ("tables/arrow/", "datasets", "tables/arrow"),
    ("suite/", "beir", "suite"),
    ("apt/", "debian", "apt"),
    (".csv", "csv", ""),
    (".tsv", "tsv", ""),
    (".parquet", "parquet", ""),
    (".sqlite", "sqlite", ""),
)


class Maker:
    """Makes inputs from seed and number.

    Args:
        sandbox: its template is there.
        names: kinds to choose from.
        runs: ids of the place's runs: first, second, stopped; empty: it has none.
    """

    def __init__(self, sandbox: Sandbox, names: Words, runs: list[str]) -> None:
        self._template, self._names = sandbox.template, names
        self._runs = dict(zip(("first", "second", "stopped"), runs, strict=False))

    def make(self, seed: int, number: int) -> Input:
        """Input `number` of a seed."""
        draw = Random(f"{seed}/{number}")
        name = draw.choices(self._names, [KINDS[one].weight for one in self._names])[0]
        kind = KINDS[name]
        words, changes, environment = draw.choice(kind.split()), list[Change](), dict[str, str | None]()
        if kind.files:
            file = draw.choice(self._matching(draw.choice(kind.files.split())))
            changes = odd_files.changes(self._template / file, file, draw, kind.working)
            words = _filled(words, self._runs | _about(file))
        elif name.startswith("environment"):
            words, environment = _filled(words, self._runs), odd_words.environment(draw)
        else:
            words = odd_words.changed(_filled(words, self._runs), draw, overrides=name == "overrides")
        as_json = draw.random() < 0.6 and not {"--json", "--help", "--version", "@gguf"} & set(words)
        if as_json:
            words = _with_json(words)
        encoding = draw.choice(("ascii", "latin-1", "cp1252")) if draw.random() < 0.05 else "utf-8"
        stdin = draw.choice(odd_words.STDIN) if words[:1] == ("search",) else b""
        return Input(name, f"{seed}/{number}", words, as_json, tuple(changes), environment, encoding, stdin)

    def plain(self, name: str) -> Iterator[list[tuple[Words, Words]]]:
        """For each command of a kind: (words, parts of the place) with each of the kind's files, as they are."""
        kind = KINDS[name]
        files = [file for pattern in kind.files.split() for file in self._matching(pattern)]
        for words in dict.fromkeys(kind.split()):
            ways = [(_filled(words, self._runs | _about(file)), parts_of(name, file)) for file in files]
            yield ways or [(_filled(words, self._runs), parts_of(name))]

    def _matching(self, pattern: str) -> list[str]:
        (filled,) = _filled((pattern,), self._runs)
        found = sorted(path for path in self._template.glob(filled) if path.is_file() and path.name != ".lock")
        if not found:
            raise LookupError(f"the place has no file {filled}")
        return [str(path.relative_to(self._template)) for path in found]


def parts_of(name: str, *files: str) -> Words:
    """The parts of the place that an input needs: its kind's, and those of the files that it changes."""
    return tuple(dict.fromkeys((*KINDS[name].parts.split(), *(Path(file).parts[0] for file in files))))


def _with_json(words: Words) -> Words:
    """`--json` behind the command's name, where no other option can take it for its value."""
    at = 2 if len(words) > 1 and words[0] in ("runs", "data", "cache") and not words[1].startswith("-") else 1
    return (*words[:at], "--json", *words[at:])


def _about(file: str) -> dict[str, str]:
    """What commands say of an odd file: itself, its suite, its base, its kind of source."""
    top = Path(file).parts[0]
    found = {"file": file, "kind": "text", "path": file}
    found |= {"suite": top if top in ("suite", "final") else file, "base": top if top in ("base", "sharded") else file}
    found |= {"corpus": file if file.endswith(".txt") else top, "drop": file if "drop" in file else "drop.jsonl"}
    for part, kind, path in _SOURCES:
        if file.startswith(part) or file.endswith(part):
            return found | {"kind": kind, "path": path or file}
    return found | ({"file": "tables/array.npy"} if file == "tables/array.jsonl" else {})


def _filled(words: Words, values: dict[str, str]) -> Words:
    made = []
    for word in words:
        for name, text in values.items():
            word = word.replace("{" + name + "}", text)
        made.append(word)
    return tuple(made)
