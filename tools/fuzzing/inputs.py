"""One input: a command line, its environment, and files that are changed before it runs; kept as a small JSON file."""

import base64
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Action = Literal["write", "remove", "folder", "link", "mode"]


@dataclass(frozen=True)
class Change:
    """One change of a file of the place.

    Attributes:
        action: write `content`; remove; put an empty folder there; a symbolic link to `target`; give it `mode`.
        path: relative to the place.
    """

    action: Action
    path: str
    content: bytes = b""
    target: str = ""
    mode: int = 0

    def apply(self, root: Path) -> None:
        """Make the change below `root`."""
        path = root / self.path
        if self.action == "mode":
            path.chmod(self.mode)
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if self.action == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.content)
        elif self.action == "folder":
            path.mkdir(parents=True)
        elif self.action == "link":
            os.symlink(self.target, path)


@dataclass(frozen=True)
class Input:
    """One input.

    Attributes:
        kind: what it is about (`kinds.KINDS`).
        label: seed and number, so that the same program makes it again.
        words: the command line without `gemma4vec`.
        as_json: whether stdout must be JSON.
        changes: of the place, in their order.
        environment: variables that are set, or removed (None).
        encoding: of the terminal.
        stdin: what the command reads there.
    """

    kind: str
    label: str
    words: tuple[str, ...]
    as_json: bool = False
    changes: tuple[Change, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    encoding: str = "utf-8"
    stdin: bytes = b""

    def to_json(self) -> dict[str, Json]:
        """As JSON; file contents are base64, unless they are short text."""
        return {
            "kind": self.kind,
            "label": self.label,
            "words": list(self.words),
            "as_json": self.as_json,
            "environment": dict(self.environment),
            "encoding": self.encoding,
            "stdin": _packed(self.stdin),
            "changes": [
                {
                    "action": change.action,
                    "path": change.path,
                    "content": _packed(change.content),
                    "target": change.target,
                    "mode": change.mode,
                }
                for change in self.changes
            ],
        }

    @classmethod
    def load(cls, path: Path) -> "Input":
        """The input of a kept failure."""
        value = json.loads(path.read_text(encoding="utf-8"))["input"]
        changes = tuple(Change(**{**one, "content": _unpacked(one["content"])}) for one in value.pop("changes"))
        stdin = _unpacked(value.pop("stdin"))
        return cls(**{**value, "words": tuple(value["words"]), "changes": changes, "stdin": stdin})


def _packed(content: bytes) -> Json:
    try:
        return {"text": content.decode("ascii")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode("ascii")}


def _unpacked(value: dict[str, str]) -> bytes:
    return value["text"].encode("ascii") if "text" in value else base64.b64decode(value["base64"])
