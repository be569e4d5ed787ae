"""A web server for files of a folder, which can do all that goes wrong on the way."""

import re
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    """faults[name]: what happens to the next requests for files of this name, one after the other; the last one goes on
    for ever if it stands in `always`. asked: [(name, where it was to begin)]; authorized: how the last one introduced
    itself."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.asked, self.authorized = folder, [], None
        self.faults, self.always = defaultdict(list), {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """Whoever goes away in the middle is no news."""


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        self.server.asked.append((name, start))
        self.server.authorized = self.headers.get("Authorization")
        fault = self.server.faults[name].pop(0) if self.server.faults[name] else self.server.always.get(name)
        path = self.server.folder / self.path.lstrip("/").removeprefix("moved/")
        if fault is None and not path.is_file():
            fault = 404
        if isinstance(fault, int):
            self._head(fault, {"Content-Length": "0"})
            return
        if fault == "moved":
            self._head(302, {"Location": f"/moved{self.path}", "Content-Length": "0"})
            return
        self._send(fault, b"<html></html>" if fault == "page" else path.read_bytes(), start)

    def _send(self, fault: str | None, data: bytes, start: int) -> None:
        if fault == "changed":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault == "longer":
            data += bytes(512)
        if fault == "all":
            start = 0
        body = data[start:]
        headers = {"Connection": "close"} if fault == "unsaid" else {"Content-Length": str(len(body))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._head(206 if start else 200, headers)
        while fault == "drip":  # until the other side has had enough, which is an error
            self.wfile.write(body[:1])
            time.sleep(0.02)
        broken = fault in ("reset", "short", "unsaid", "slow")
        self.wfile.write(body[: len(body) // 2] if broken else body)
        self.wfile.flush()
        if broken:  # what is not read by then is lost with the connection
            time.sleep(5 if fault == "slow" else 0.1)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = broken

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, *args) -> None:
        """Nobody reads it."""
