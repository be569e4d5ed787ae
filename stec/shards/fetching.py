"""One file from an address, through fsspec: resumed where it broke off, tried again if what went wrong may pass."""

import importlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from stec.errors import Unavailable, UsageError
from stec.shards.copies import Content, Part

log = logging.getLogger("stec")

PROTOCOLS = ("https", "http", "s3", "gs", "az", "abfs", "hf")
TRIES = 5
"""How often one file is asked for, as long as nothing comes of it."""
WAIT = 1.0
"""Seconds before the second try; before each one after that twice as many. Up to half as much more is drawn, so that
many processes do not come back at once."""
TIMEOUT = 60.0
"""Seconds without a byte after which a connection is given up."""
SLOWEST = 1000
"""Bytes a second; a connection that has been slower than this for TIMEOUT seconds is given up as well."""
PROGRESS = 1 << 20
"""Bytes after which the tries are counted anew."""
_CHUNK = 8 << 20


class Missing(Unavailable):
    """There is no such file."""


class Denied(Unavailable):
    """One may not read it; of what is not there, some servers say the same."""


def address(data: str) -> str | None:
    """The address that `data` is, None if it is a path. UsageError if it is an address that is not gone to: through a
    shell, another file system, or with a secret in it (which would come to stand in logs and checkpoints)."""
    if os.path.exists(data) or not (match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(://|::|:(?=\w))", data)):
        return None
    shown = f"{match[1]}{match[2]}..."
    if match[2] == ":" and match[1] != "pipe":
        return None
    if match[1] not in PROTOCOLS or "::" in data:
        raise UsageError(f"data={shown}: a path was expected, or one address with {', '.join(PROTOCOLS)}://.")
    parts = urlsplit(data)
    if "@" in parts.netloc or parts.query or parts.fragment or not parts.netloc:
        raise UsageError(
            f"data={shown}: only a host and a path were expected: a name, password or signature would be written into"
            " logs and checkpoints; ~/.netrc, AWS_* and fsspec's own configuration are the places for them."
        )
    return data.rstrip("/")


def text(url: str, limit: int) -> bytes:
    """All of a short file, asked for anew. Missing, Unavailable; UsageError if it is longer than `limit` bytes."""
    found = bytearray()

    def once() -> None:
        found.clear()
        with _opened(url, 0, {"Cache-Control": "no-cache"}) as stream:
            for chunk in _chunks(stream, limit + 1):
                found.extend(chunk)
                if len(found) > limit:
                    raise UsageError(f"{url} is longer than {limit:,} bytes: this is not what was looked for.")
            if stream.num_bytes not in (None, len(found)):
                raise ConnectionError(f"it ends after {len(found)} of {stream.num_bytes} bytes")

    _tried(url, once, lambda: 0)
    return bytes(found)


def fetch(url: str, content: Content, part: Part) -> None:
    """Complete a part, whatever there is of it. Missing; Unavailable if the file cannot be had, or is another one."""
    for _ in range(2):  # what was there may have been of another file, and bytes get lost on the way
        _tried(url, lambda: _pull(url, content, part), lambda: part.size)
        if part.is_whole(content):
            return
        part.restart()
    raise Unavailable(f"{url} is not the file that was indexed: its sha256 is another one. {_CHANGED}")


_CHANGED = "Was it changed since? `stec-shards index` again, for a new run."


class _Stream(NamedTuple):
    """What a server sends: `read(size)`; from where; and how long all of the file is, if it says so."""

    read: Callable[[int], bytes]
    start: int
    num_bytes: int | None


def _pull(url: str, content: Content, part: Part) -> None:
    """What is missing of a part, in one connection."""
    if part.size >= content.num_bytes:
        return
    with _opened(url, part.size, {}) as stream:
        if stream.num_bytes not in (None, content.num_bytes):
            raise Unavailable(f"{url} has {stream.num_bytes} bytes, the index says {content.num_bytes}. {_CHANGED}")
        if stream.start != part.size:
            part.restart()  # a server that sends everything, whatever it is asked for
        for chunk in _chunks(stream, content.num_bytes - part.size):
            part.append(chunk)
    if part.size < content.num_bytes:
        raise ConnectionError(f"it ends after {part.size} of {content.num_bytes} bytes")


def _chunks(stream: _Stream, most: int) -> Iterator[bytes]:
    """What comes, at most so many bytes of it; TimeoutError if it takes too long."""
    begun, received = time.monotonic(), 0
    while received < most and (chunk := stream.read(min(_CHUNK, most - received))):
        received += len(chunk)
        yield chunk
        spent = time.monotonic() - begun
        if spent > TIMEOUT and received < SLOWEST * spent:
            raise TimeoutError


@contextmanager
def _opened(url: str, start: int, headers: dict[str, str]) -> Iterator[_Stream]:
    """A connection of its own. No file system outlives it: its thread and its sockets must not be there when loading
    processes are forked."""
    protocol = url.partition(":")[0]
    system = _system(protocol)
    if protocol not in ("http", "https"):
        with system.open(url, "rb", block_size=_CHUNK, cache_type="none") as file:
            file.seek(start)
            yield _Stream(file.read, start, file.size)
        return
    # identity: what is counted and resumed are the bytes of the file, not of something compressed on the way.
    asked = {**system.kwargs.get("headers", {}), "Accept-Encoding": "identity", **headers}
    if start:
        asked["Range"] = f"bytes={start}-"
    # The size says no more than that the server need not be asked for it.
    with system.open(url, block_size=0, size=1, headers=asked) as file:
        answer = file.r
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if answer.status == 206 and match and int(match[1]) == start:
            yield _Stream(file.read, start, int(match[2]) if match[2] != "*" else None)
        elif answer.status == 200:
            yield _Stream(file.read, 0, answer.content_length)
        else:
            raise ConnectionError(f"the server answers {answer.status}, which was not asked for")


def _system(protocol: str) -> Any:
    """A file system of fsspec, made anew."""
    fsspec = importlib.import_module("fsspec")
    options: dict[str, Any] = {}
    try:
        if protocol in ("http", "https"):
            timeout = importlib.import_module("aiohttp").ClientTimeout(sock_connect=TIMEOUT, sock_read=TIMEOUT)
            options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
        return fsspec.filesystem(protocol, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError as error:
        hint = "pip install 'stec[remote]'" if protocol in ("http", "https", "s3") else "see fsspec's pages"
        raise UsageError(f"data={protocol}://...: a package is missing, {hint} ({error}).") from None


def _tried(url: str, attempt: Callable[[], None], progress: Callable[[], int]) -> None:
    """attempt(), again if it fails for a reason that may pass; progress(): how many bytes there are."""
    tries = 0
    while True:
        before = progress()
        try:
            return attempt()
        except (Unavailable, UsageError):
            raise
        except Exception as error:  # of any library behind fsspec
            why, passes = _judged(error)
            missing = isinstance(error, FileNotFoundError)
            denied = isinstance(error, PermissionError) or getattr(error, "status", None) == 403
            tries = 1 if progress() - before >= PROGRESS else tries + 1
        if missing:
            raise Missing(f"{url} is not there.")
        if not passes or tries >= TRIES:
            after = f" ({tries} tries)" if passes else ""
            raise (Denied if denied else Unavailable)(f"{url} cannot be fetched: {why}{after}.")
        wait = WAIT * 2 ** (tries - 1) * (1 + time.monotonic_ns() // 1000 % 1000 / 2000)
        log.warning("%s: %s; tried again in %.1f s", url, why, wait)
        time.sleep(wait)


def _judged(error: Exception) -> tuple[str, bool]:
    """What went wrong, in words without anything that may be secret, and whether it may pass."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and status >= 400:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "an error"
        return f"the server says {status} ({phrase})", status >= 500 or status in (408, 416, 425, 429)
    if isinstance(error, PermissionError):
        return "access is denied", False
    if isinstance(error, TimeoutError):
        return f"too little came within {TIMEOUT:g} s", True
    kind = type(error).__name__
    told = " ".join(re.sub(r"\?[^\s'\"]+|//[^/\s]*@", "...", str(error)).split())[:200]
    return f"{kind}: {told}" if told else kind, not re.search("Certificate|Credentials|InvalidURL", kind)


def joined(url: str, name: str) -> str:
    """The address of a file in a folder."""
    return f"{url}/{quote(name) if url.startswith('http') else name}"
