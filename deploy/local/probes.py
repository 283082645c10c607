"""Questions to servers whose answer says that they work. Each raises OSError when they do not."""

import asyncio
import struct
from typing import Final

_SECONDS: Final = 4.0


async def _exchange(port: int, request: bytes, read: int) -> bytes:
    """Sends the request and returns the first bytes of the answer."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            await writer.drain()
            return await reader.readexactly(read)
    except (EOFError, TimeoutError) as error:
        raise ConnectionError(f"no complete answer from port {port}") from error
    finally:
        if writer is not None:
            writer.close()


async def http_status(port: int, path: str) -> int:
    """The status of a GET.

    Raises:
        OSError: there is no HTTP answer.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    answer = await _exchange(port, request.encode(), 12)
    if not answer.startswith(b"HTTP/1.") or not answer[9:].isdigit():
        raise ConnectionError(f"port {port} does not speak HTTP")
    return int(answer[9:])


async def http_ok(port: int, path: str) -> None:
    """A GET has to be answered with 2xx."""
    status = await http_status(port, path)
    if not 200 <= status < 300:
        raise ConnectionError(f"{path} answers {status}")


async def http_any(port: int, path: str) -> None:
    """A GET has to be answered, whatever the answer says."""
    await http_status(port, path)


async def postgres_accepts(port: int) -> None:
    """PostgreSQL has to ask for a password; while it starts or stops it answers with an error instead."""
    body = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
    answer = await _exchange(port, struct.pack("!i", len(body) + 4) + body, 1)
    if answer != b"R":
        raise ConnectionError("PostgreSQL does not take connections yet")


async def kafka_has_broker(port: int) -> None:
    """Kafka's metadata has to name a broker, which it does once that is registered and unfenced."""
    client = b"lightbox"
    header = struct.pack("!hhih", 3, 4, 1, len(client)) + client
    body = header + struct.pack("!i?", 0, False)
    answer = await _exchange(port, struct.pack("!i", len(body)) + body, 16)
    _, _, _, brokers = struct.unpack("!iiii", answer)
    if brokers < 1:
        raise ConnectionError("Kafka has no broker yet")
