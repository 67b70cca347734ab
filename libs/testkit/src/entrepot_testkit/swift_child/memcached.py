"""The part of memcached's text protocol that Swift's cache and tempauth speak, in one process.

Standard library only: it runs in Swift's own environment. Nothing is evicted; a test's or demo's
Swift keeps a few hundred small values.
"""

import asyncio
import time
from dataclasses import dataclass

RELATIVE_S_MAX = 30 * 24 * 3600  # larger expiry values are absolute, by the protocol
VALUE_BYTES_MAX = 8 << 20


@dataclass
class Item:
    flags: bytes
    data: bytes
    expires_at: float | None


class Cache:
    def __init__(self) -> None:
        self._items: dict[bytes, Item] = {}

    def find(self, key: bytes) -> Item | None:
        item = self._items.get(key)
        if item and item.expires_at is not None and item.expires_at <= time.time():
            del self._items[key]
            return None
        return item

    def store(self, key: bytes, flags: bytes, ttl_s: int, data: bytes) -> bytes:
        self._items[key] = Item(flags, data, _expiry(ttl_s))
        return b"STORED\r\n"

    def shift(self, key: bytes, delta: int) -> bytes:
        item = self.find(key)
        if item is None:
            return b"NOT_FOUND\r\n"
        item.data = str(max(0, int(item.data) + delta)).encode()
        return item.data + b"\r\n"

    def remove(self, key: bytes) -> bytes:
        return b"DELETED\r\n" if self._items.pop(key, None) else b"NOT_FOUND\r\n"


async def serve(port: int) -> None:
    cache = Cache()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await _answer(cache, line.split(), reader)
                if answer and not line.rstrip().endswith(b" noreply"):
                    writer.write(answer)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port)
    await server.serve_forever()


async def _answer(cache: Cache, words: list[bytes], reader: asyncio.StreamReader) -> bytes:
    match words:
        case [b"get" | b"gets", *keys]:
            found = ((key, cache.find(key)) for key in keys)
            values = [
                b"VALUE %s %s %d\r\n%s\r\n" % (key, item.flags, len(item.data), item.data)
                for key, item in found
                if item
            ]
            return b"".join(values) + b"END\r\n"
        case [b"set" | b"add" as verb, key, flags, ttl, length, *_]:
            data = await reader.readexactly(min(int(length), VALUE_BYTES_MAX) + 2)
            if verb == b"add" and cache.find(key):
                return b"NOT_STORED\r\n"
            return cache.store(key, flags, int(ttl), data[:-2])
        case [b"incr", key, delta, *_]:
            return cache.shift(key, int(delta))
        case [b"decr", key, delta, *_]:
            return cache.shift(key, -int(delta))
        case [b"delete", key, *_]:
            return cache.remove(key)
        case [b"touch", *_]:
            return b"TOUCHED\r\n"
        case [b"version"]:
            return b"VERSION 1.6.0\r\n"
    return b"ERROR\r\n"


def _expiry(ttl_s: int) -> float | None:
    if not ttl_s:
        return None
    return float(ttl_s) if ttl_s > RELATIVE_S_MAX else time.time() + ttl_s
