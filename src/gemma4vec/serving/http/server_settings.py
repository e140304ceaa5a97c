"""Settings of a server: what the command was asked for, and the fixed limits of requests."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.ledger.run_folder import MANIFEST, RunFolder, find_run

_SAVED = "gemma4vec.json"  # as in `model.save.read_model`, whose import takes seconds

InputType = Literal["query", "document"]
TooLong = Literal["error", "truncate"]

# OpenAI's limits of one request (platform.openai.com/docs/api-reference/embeddings).
MOST_INPUTS = 2048
MOST_TOKENS = 300_000
MOST_BODY_BYTES = 2 * 2**20
MOST_HITS = 1000  # of one query
DEFAULT_TIMEOUT_MS = 30_000
LONGEST_TIMEOUT_MS = 600_000
HEAD_SECONDS = 10.0  # from the first byte of a request, or from a new connection, to the end of its headers
BODY_SECONDS = 20.0  # from the end of the headers to the end of the body
READING_SECONDS = 60.0  # a client must have read its reply this long after it was sent
IDLE_SECONDS = 75  # a connection is closed when it is idle for this long
DRAIN_SECONDS = 30.0  # accepted requests are finished within this time after SIGTERM


@dataclass(frozen=True)
class ServerSettings:
    """What `gemma4vec serve` was asked for.

    Attributes:
        model: path of a finished run or of a folder that gemma4vec saved, or a base's name.
        index: folder of a search index for `/v1/search`.
        host, port: the address; port 0 is any free one.
        workers: number of processes that share the port.
        tokens: accepted bearer tokens; empty: none is asked for.
        name: name of the model for clients; None: its own.
        default_input_type: role of texts whose request names none; None: such a request is refused.
        too_long: whether texts over the limit are refused or truncated.
        batch_tokens: tokens of one forward pass; None: what suits the device.
        queue_tokens: tokens that may wait; None: what the model computes in ten seconds, measured at the start.
        max_tokens: limit of one text; None: the model's own.
        device, dtype: as of `Embedder.load`.
        compile: compile the layers before the server is ready.
    """

    model: str
    index: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    tokens: tuple[str, ...] = ()
    name: str | None = None
    default_input_type: InputType | None = None
    too_long: TooLong = "error"
    batch_tokens: int | None = None
    queue_tokens: int | None = None
    max_tokens: int | None = None
    device: str | None = None
    dtype: str | None = None
    compile: bool = True

    def as_json(self) -> str:
        """One line of JSON, for a process of its own."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> "ServerSettings":
        """The settings that `as_json` wrote."""
        value = json.loads(line)
        return ServerSettings(**{**value, "tokens": tuple(value["tokens"])})


def find_served_model(name: str) -> str:
    """What `Embedder.load` opens for a run (folder, id or `latest`), a saved folder, or a base.

    Raises:
        InputError: no such run, or one that is not finished.
    """
    path = Path(name)
    if path.is_dir() and not (path / MANIFEST).is_file():
        return name
    if not path.is_dir() and (":" in name or "/" in name):
        return name
    run: RunFolder = find_run(name, home())
    if not (run.model / _SAVED).is_file():
        raise InputError(
            f"{run.path} is not finished and has no model; go on with: gemma4vec train --resume {run.path}"
        )
    return str(run.model)
