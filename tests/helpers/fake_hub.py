"""A model hub of one process: data sets in a folder, served with the answers that `huggingface_hub` asks for.

`ROOT/owner/name/...` are the files of a data set at its only commit: what `ROOT/commits.json` says by repository, or
`COMMIT`. Of `gated/...` every file is refused as the hub refuses what is gated, of anything else that is not there it
says that there is no such repository.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class Handler(BaseHTTPRequestHandler):
    """Answers for one folder of data sets."""

    commit = COMMIT

    def __init__(self, root: Path, *given: Any):
        self.root = root
        super().__init__(*given)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *told: Any) -> None:
        """Tests need no log."""

    def _answer(self, body: bytes = b"") -> None:
        address = urlsplit(self.path)
        parts = unquote(address.path).strip("/").split("/")
        if parts == [""]:
            return self._send(200, b"a hub")
        if len(parts) < 3:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        api = parts[0] == "api"
        owner, name, *rest = parts[2:] if api else parts[1:]
        folder = self.root / owner / name
        if owner == "gated":
            return self._refuse(403, "GatedRepo", "Access to this dataset is restricted")
        if not folder.is_dir():
            return self._refuse(401, "RepoNotFound", "Repository not found")
        self.commit = self._commit(f"{owner}/{name}")
        if len(rest) > 1 and rest[1] not in ("main", self.commit):
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
        if not api:
            return self._file(folder / "/".join(rest[2:]))
        if rest[:1] == ["tree"]:
            below, deep = folder / "/".join(rest[2:]), "recursive=true" in address.query.lower()
            if not below.is_dir():
                return self._refuse(404, "EntryNotFound", "Entry not found")
            inside = sorted(below.rglob("*") if deep else below.iterdir())
            return self._json([self._entry(folder, file) for file in inside])
        return self._json(self._told(f"{owner}/{name}", folder, rest, body))

    def _commit(self, repository: str) -> str:
        file = self.root / "commits.json"
        known: dict[str, str] = json.loads(file.read_text()) if file.is_file() else {}
        return known.get(repository, COMMIT)

    def _told(self, repository: str, folder: Path, rest: list[str], body: bytes) -> Any:
        if rest[:1] == ["paths-info"]:
            asked = json.loads(body)["paths"]
            return [self._entry(folder, folder / path) for path in asked if (folder / path).exists()]
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        siblings = [{"rfilename": str(file.relative_to(folder))} for file in files]
        return {
            "id": repository,
            "sha": self.commit,
            "siblings": siblings,
            "private": False,
            "gated": False,
            "tags": [],
        }

    def _entry(self, folder: Path, file: Path) -> dict[str, Any]:
        path = str(file.relative_to(folder))
        if file.is_dir():
            return {"type": "directory", "path": path, "oid": "0" * 40}
        return {"type": "file", "path": path, "size": file.stat().st_size, "oid": _etag(file)}

    def _file(self, file: Path) -> None:
        if not file.is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found")
        content = file.read_bytes()
        first, last = 0, len(content) - 1
        if asked := self.headers.get("Range"):
            begin, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
        self._send(206 if asked else 200, content[first : last + 1], {"ETag": f'"{_etag(file)}"'})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(status, json.dumps({"error": message}).encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"X-Repo-Commit": self.commit, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """The address of a hub that serves a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, root)) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def client_environment(address: str, folder: Path) -> dict[str, str]:
    """What a process needs that asks this hub alone, and keeps what it gets in `folder`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return {
        **kept,
        "HF_ENDPOINT": address,
        "HF_HOME": str(folder / "hf"),
        "no_proxy": "127.0.0.1",
        "GEMMA4VEC_CACHE": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


if __name__ == "__main__":
    with serving(Path(sys.argv[1])) as address:
        print(address, flush=True)
        sys.stdin.read()
