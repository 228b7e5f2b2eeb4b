"""A server of files that can go wrong in every way that a test asks for."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers with ``content``, at any path.

    Attributes:
        content: The file.
        tag: Its ETag; None for a server that names no version.
        cut: After so many bytes the connection breaks; one value for each request, None for none.
        statuses: Codes that requests are answered with instead, in turn.
        headers: More headers, which replace those of the same name.
        takes_ranges: Whether a rest can be asked for.
        is_blind: Sends the rest of any version.
        pause: Seconds before the second half.
        requests: Path and range of each request.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.content = content
        self.tag: str | None = '"one"'
        self.cut: list[int | None] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.takes_ranges = True
        self.is_blind = False
        self.pause = 0.0
        self.requests: list[tuple[str, str | None]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is what some tests are about."""

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get('Range')
        server.requests.append((self.path, asked))
        if self.path.startswith('/moved/'):
            target = self.path.removeprefix('/moved') if 'loop' not in self.path else self.path
            self.answer(302, dict(Location=target))
            return
        if server.statuses:
            self.answer(server.statuses.pop(0), {})
            return
        begin = 0
        same = server.is_blind or self.headers.get('If-Range') == server.tag
        if asked and server.takes_ranges and same:
            begin = int(re.fullmatch(r'bytes=(\d+)-', asked)[1])
        body = server.content[begin:]
        headers = {'Content-Length': str(len(body)), 'Content-Type': 'application/octet-stream'}
        if server.tag:
            headers['ETag'] = server.tag
        if begin:
            headers['Content-Range'] = (
                f'bytes {begin}-{len(server.content) - 1}/{len(server.content)}'
            )
        self.answer(206 if begin else 200, headers | server.headers)
        cut = server.cut.pop(0) if server.cut else None
        half = len(body) // 2
        self.wfile.write(body[:half] if cut is None else body[:cut])
        if cut is None:
            time.sleep(server.pause)
            self.wfile.write(body[half:])

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """A server while the block runs."""
    server = Server(content)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
