"""A load generator on asyncio streams: a closed loop of clients, or arrivals at a rate whatever the server does."""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Reply:
    """A reply; status 0: the connection was closed."""

    status: int
    body: bytes
    seconds: float
    retry_after: int = 0
    tries: int = 1


class Connection:
    """One kept-alive connection, opened when it is first used."""

    def __init__(self, port: int):
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, payload: bytes) -> Reply:
        started = time.perf_counter()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port, limit=2**26)
            reader, writer = self._streams
            writer.write(payload)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            fields = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(fields["content-length"]))
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return Reply(0, b"", time.perf_counter() - started)
        seconds = time.perf_counter() - started
        if fields.get("connection") == "close":
            self.close()
        return Reply(int(head[0].split()[1]), body, seconds, int(fields.get("retry-after", 0)))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def payload(body: dict[str, Any]) -> bytes:
    """A whole request for vectors in base64."""
    content = json.dumps({"encoding_format": "base64", **body}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
    return f"{head}Content-Type: application/json\r\nX-Timeout-Ms: 600000\r\n\r\n".encode() + content


async def closed_loop(port: int, bodies: Sequence[dict[str, Any]], clients: int, *, retry: bool = False) -> list[Reply]:
    """Replies in the order of the bodies; each client sends its next request when it has its reply.

    `retry`: a refused request is sent again, at most 500 times.
    """
    replies: list[Reply | None] = [None] * len(bodies)
    left = iter(range(len(bodies)))

    async def client() -> None:
        connection = Connection(port)
        for number in left:
            request = payload(bodies[number])
            for tries in range(1, 501):
                reply = await connection.post(request)
                reply.tries = tries
                if not retry or reply.status != 429:
                    break
                await asyncio.sleep(0.05 * reply.retry_after)
            replies[number] = reply
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return [reply for reply in replies if reply is not None]


async def open_loop(port: int, bodies: Sequence[dict[str, Any]], rate: float, *, seed: int) -> list[Reply]:
    """Replies to requests that are sent at `rate` a second, at random intervals (Poisson), whatever is answered."""
    generator = random.Random(seed)
    requests = [payload(body) for body in bodies]
    idle: list[Connection] = []
    tasks = []
    loop = asyncio.get_running_loop()
    at = loop.time()

    async def send(request: bytes) -> Reply:
        connection = idle.pop() if idle else Connection(port)
        reply = await connection.post(request)
        idle.append(connection)
        return reply

    for request in requests:
        at += generator.expovariate(rate)
        if (pause := at - loop.time()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(send(request)))
    replies = list(await asyncio.gather(*tasks))
    for connection in idle:
        connection.close()
    return replies
