"""Zarr stores behind URLs, read through fsspec: http, and whatever else it has a module for.

fsspec belongs to dask, and is imported when it is needed, as is what it needs itself (aiohttp for http, s3fs for s3).
"""

import asyncio
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dask.base import tokenize
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from detcal.errors import InputError

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
SECONDS_TO_ANSWER = 10  # of a server: to connect, and between two pieces of an answer
AT_ONCE = 64  # requests
OF_STORE = ("zarr.json", ".zarray", ".zgroup")


def is_url(path: Any) -> bool:
    """Whether it is no path on a disk."""
    return isinstance(path, str) and URL.match(path) is not None


class Answers(FsspecStore):
    """A store of which servers may give whole files where a part is asked for, as simple ones do."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """As zarr asks for it."""
        found = await super().get(key, prototype, byte_range)
        if found is not None and isinstance(byte_range, RangeByteRequest) and len(found) > byte_range.end - byte_range.start:
            return found[byte_range.start : byte_range.end]
        if found is not None and isinstance(byte_range, SuffixByteRequest) and len(found) > byte_range.suffix:
            return found[len(found) - byte_range.suffix :]
        return found


@lru_cache(maxsize=16)
def store_at(url: str) -> FsspecStore:
    """The store behind a URL, to be read.

    Raises
    ------
    InputError
        Of a protocol that fsspec does not know; what it needs for one is not installed; nobody answers; or what is there is no zarr store.
    """
    from fsspec import available_protocols  # type: ignore[import-untyped]

    protocol = url.partition("://")[0].lower()
    if protocol not in available_protocols():
        raise InputError(
            f"cannot read {url}: {protocol}:// is unknown; expected a path, or a URL that begins with http://, https:// or s3://, say"
        )
    try:
        options = {"client_kwargs": {"timeout": http_timeout()}} if url.lower().startswith("http") else {}
        store = Answers.from_url(url, options, read_only=True)
    except ImportError as error:
        what = f"{error.name} to be installed: pip install {error.name}" if error.name else f"more than is installed: {error}"
        raise InputError(f"cannot read {url}: expected {what}") from error
    if not any(Remote(store).get(name) for name in OF_STORE):
        raise InputError(
            f"no zarr store at {url}: expected zarr.json, .zgroup or .zarray there; a URL is that of a zarr store, and files of other "
            "kinds are opened from a disk: copy them to one"
        )
    return store


def http_timeout() -> Any:
    """How long to wait for a server."""
    from aiohttp import ClientTimeout

    return ClientTimeout(total=None, sock_connect=SECONDS_TO_ANSWER, sock_read=SECONDS_TO_ANSWER)


def version_of_url(url: str, name: str = "") -> str:
    """What changes when an array is written with other sizes: of its numbers a server may not tell."""
    remote = Remote(store_at(url))
    return str(tokenize([remote.get(f"{name}/{file}".lstrip("/")) for file in OF_STORE]))


@dataclass(frozen=True)
class Remote:
    """The files of a store behind a URL."""

    store: FsspecStore

    @property
    def path(self) -> str:
        return str(self.store.path)

    def holds(self, keys: list[str]) -> list[bool]:
        """Whether each of these is there: servers list nothing, and are asked for a byte of each."""
        first = RangeByteRequest(0, 1)
        return [found is not None for start in range(0, len(keys), AT_ONCE) for found in self.all_of(keys[start : start + AT_ONCE], first)]

    def part(self, key: str, size: int, *, at_start: bool) -> bytes:
        """The first or last bytes of a file."""
        return self.all_of([key], RangeByteRequest(0, size) if at_start else SuffixByteRequest(size))[0] or b""

    def get(self, key: str) -> bytes | None:
        """A file; None if it is not there."""
        return self.all_of([key])[0]

    def all_of(self, keys: list[str], part: ByteRequest | None = None) -> list[bytes | None]:
        """Several files, or a part of each, asked for together."""
        return sync(together([self.one(key, part) for key in keys]))

    async def one(self, key: str, part: ByteRequest | None) -> bytes | None:
        """A file, or a part of it; None if it is not there. Whatever else keeps it from being read is an error."""
        found = await self.store.get(key, default_buffer_prototype(), part)
        return None if found is None else found.to_bytes()


async def together(coroutines: list[Coroutine[Any, Any, bytes | None]]) -> list[bytes | None]:
    """What several coroutines give."""
    return await asyncio.gather(*coroutines)
