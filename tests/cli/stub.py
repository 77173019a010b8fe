"""Something that speaks HTTP and says what the test wants, for answers no real server gives on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ALIVE = b'{"status": "alive"}'


@dataclass
class Stub:
    """`received` are the bodies that were posted, in order."""

    url: str
    received: list[bytes] = field(default_factory=list)


@contextmanager
def stub_server(get: bytes, post: bytes = b"") -> Iterator[Stub]:
    """Answers every GET and every POST with the same body."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(get)

        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self._answer(post)

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Stub(f"http://127.0.0.1:{server.server_port}", received)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
