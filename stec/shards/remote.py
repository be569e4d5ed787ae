"""Shards behind an address: index and table are fetched at the start, a tar when the first of its samples is read.

A tar is read only when it is here as a whole, with the length and the sha256 that the index says. One that cannot be
had ends the run (Unavailable): a server that is down for an hour must not decide which samples are learnt from.
"""

import logging
from functools import lru_cache
from typing import Any, NamedTuple

from stec.errors import UsageError
from stec.shards.copies import Content, Copies, Held
from stec.shards.fetching import Denied, Missing, fetch, joined, text
from stec.shards.index import NAME, Index, parsed
from stec.shards.reader import Shards
from stec.shards.table import mapped

log = logging.getLogger("stec")

MAX_OPEN = 4
"""Tars that one process keeps open: they cannot be deleted meanwhile, and to open one again costs little."""
MAX_INDEX = 64 << 20
"""Bytes of an index.json; one of 300,000 tars is as long."""


class Server(NamedTuple):
    """A folder behind an address, and where copies of its files are kept."""

    address: str
    copies: Copies

    def hold(self, name: str, content: Content) -> Held:
        """A file of the folder, fetched if there is no copy. Unavailable if it cannot be had, or is another one."""
        url = joined(self.address, name)
        return self.copies.hold(content, lambda part: fetch(url, content, part))


class RemoteShards(Shards):
    """The samples of a split that lies elsewhere; `folder` is its address. read() may raise Unavailable, too."""

    def __init__(self, server: Server, index: Index):
        self._server = server
        self._table_content = Content(index.table.num_bytes, index.table.sha256)
        self._contents = [Content(shard.num_bytes, shard.sha256) for shard in index.shards]
        super().__init__(server.copies.place, index)
        self.folder = server.address

    def check_room(self, window: int) -> None:
        """UsageError if there is no room for the copies that are in use at once, when `window` tars are shuffled
        together: those of two windows, and what is open elsewhere."""
        longest = max((content.num_bytes for content in self._contents), default=0)
        least = min(self.num_bytes, (2 * window + MAX_OPEN) * longest) + 2 * self._table_content.num_bytes
        if least > self._server.copies.limit:
            raise UsageError(
                f"STEC_CACHE_GB={self._server.copies.limit / 1e9:g} is too little for {self.folder}: at least"
                f" {least / 1e9:.3g} are needed for dataset.window={window}."
            )

    def _open(self) -> None:
        self._held = self._server.hold(self._table.name, self._table_content)
        self._rows = mapped(self._held.path, self.num_samples, len(self.fields))
        names, contents, server = self.shard_names, self._contents, self._server
        self._file = lru_cache(maxsize=MAX_OPEN)(lambda shard: server.hold(names[shard], contents[shard]))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_held"}


def find_split(address: str, split: str, copies: Copies) -> RemoteShards | None:
    """The split of a packed data set behind an address, or of a single indexed folder, which counts as `train`; None if
    there is none. Unavailable if it cannot be told; UsageError and DataError as for a folder."""
    denied: list[Denied] = []
    for folder in (joined(address, split), address) if split == "train" else (joined(address, split),):
        url = joined(folder, NAME)
        try:
            data = text(url, MAX_INDEX)
        except Missing:
            continue
        except Denied as error:  # so S3 says that there is nothing, to who may not list
            denied.append(error)
            continue
        return RemoteShards(Server(folder, copies), parsed(data, url))
    if denied and split == "train":
        raise denied[0]
    for refusal in denied:
        log.warning("taken for missing: %s", refusal)
    return None
