"""A minimal HTTP/1.1 client on asyncio streams: fast, and it sees what the server does with a connection."""

import asyncio
import json
from typing import Any


class Connection:
    """One connection, kept alive."""

    def __init__(self, port: int):
        self.port = port
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aenter__(self) -> "Connection":
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def ask(self, method: str, path: str, value: Any = None) -> tuple[int, Any]:
        """Status and JSON of a reply; a closed connection is a ConnectionError."""
        body = b"" if value is None else json.dumps(value).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        return await self.reply()

    async def reply(self) -> tuple[int, Any]:
        """The next reply."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(fields["content-length"]))
        except asyncio.IncompleteReadError as error:
            raise ConnectionError(f"closed after {len(error.partial)} bytes") from error
        return int(head[0].split()[1]), json.loads(body) if body.startswith(b"{") else body.decode()
