"""A small Hugging Face hub on a loopback socket: what a pull asks for, over real HTTP, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee00" * 5
LARGE_BYTES = 1_000_000

MODEL = "tiny/model-4bit"
WEIGHTS = "model.safetensors"
#: What a model needs, and what lies beside it in many repositories.
FILES = {
    "config.json": b'{"model_type": "qwen3"}',
    "tokenizer.json": b"{}" * 100,
    "chat_template.jinja": b"{{ messages }}",
    WEIGHTS: random.Random(1).randbytes(3_000_000),
}
UNWANTED = {"README.md": b"# hello", "pytorch_model.bin": b"x" * 2_000_000, "consolidated.safetensors": b"y" * 1000}


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1_of(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class Refusal:
    """A status instead of an answer, with the header that the library reads."""

    status: int
    error_code: str | None = None


@dataclass
class FakeHub:
    """What it has, what goes wrong, and what it was asked.

    Attributes:
        repos: hub id -> file -> content. Files of 1 MB and more lie on a second host, as the hub's large files do.
        cut_after: file -> for each of the next downloads, how many bytes are sent before the connection breaks.
        hold_after: file -> its next downloads stop after so many bytes until `release` is set.
        sends_instead: file -> bytes that come in place of its own.
        knows_ranges: False = a range is ignored and everything sent, as some mirrors do.
        refusals: hub id or file -> how it is refused.
        sent: (file, first byte) of every download.
        tokens: (on the second host, Authorization header) of every download of a large file.
    """

    url: str = ""
    files_url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    hold_after: dict[str, int] = field(default_factory=dict)
    sends_instead: dict[str, bytes] = field(default_factory=dict)
    knows_ranges: bool = True
    refusals: dict[str, Refusal] = field(default_factory=dict)
    sent: list[tuple[str, int]] = field(default_factory=list)
    tokens: set[tuple[bool, str | None]] = field(default_factory=set)
    is_holding: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def sent_of(self, name: str) -> list[int]:
        """First bytes of the downloads of one file, in order."""
        return [start for each, start in self.sent if each == name]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def log_message(self, *_: object) -> None:
        pass

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            self._info(found[1], found[2] or "revision", found[3] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(found[1], found[3], is_second_host=False)
        elif found := re.fullmatch(r"/second-host/([^/]+/[^/]+)/(.+)", path):
            self._file(found[1], found[2], is_second_host=True)
        else:
            self._refuse(Refusal(404))

    def _info(self, hub_id: str, what: str, revision: str) -> None:
        if (refusal := self.hub.refusals.get(hub_id)) is not None:
            return self._refuse(refusal)
        if hub_id not in self.hub.repos:
            return self._refuse(Refusal(404, "RepoNotFound"))
        if revision not in ("main", COMMIT):
            return self._refuse(Refusal(404, "RevisionNotFound"))
        files = self.hub.repos[hub_id]
        if what == "tree":
            return self._json([_tree_row(name, content) for name, content in files.items()])
        siblings = [_sibling(name, content) for name, content in files.items()]
        return self._json({"id": hub_id, "sha": COMMIT, "siblings": siblings})

    def _file(self, hub_id: str, name: str, *, is_second_host: bool) -> None:
        if (refusal := self.hub.refusals.get(name)) is not None:
            return self._refuse(refusal)
        content = self.hub.repos[hub_id][name]
        if len(content) >= LARGE_BYTES:
            self.hub.tokens.add((is_second_host, self.headers.get("Authorization")))
        if len(content) >= LARGE_BYTES and not is_second_host:
            return self._redirect(hub_id, name, content)
        if self.command == "HEAD":
            return self._head(200, len(content), {"ETag": f'"{git_sha1_of(content)}"'})
        return self._send(name, self.hub.sends_instead.get(name, content))

    def _redirect(self, hub_id: str, name: str, content: bytes) -> None:
        self._head(
            302,
            0,
            {
                "Location": f"{self.hub.files_url}/second-host/{hub_id}/{name}",
                "X-Linked-Etag": f'"{sha256_of(content)}"',
                "X-Linked-Size": str(len(content)),
            },
        )

    def _send(self, name: str, content: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.hub.knows_ranges else 0
        self.hub.sent.append((name, start))
        part = content[start:]
        self._head(
            206 if start else 200, len(part), {"Content-Range": f"bytes {start}-/{len(content)}"} if start else {}
        )
        if cuts := self.hub.cut_after.get(name):
            part, self.close_connection = part[: cuts.pop(0)], True
        if (held := self.hub.hold_after.get(name)) is not None:
            self.wfile.write(part[:held])
            self.wfile.flush()
            self.hub.is_holding.set()
            self.hub.release.wait(60)
            part = part[held:]
        self.wfile.write(part)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("X-Repo-Commit", COMMIT)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self._head(200, len(body), {})
        self.wfile.write(body)

    def _refuse(self, refusal: Refusal) -> None:
        self._head(refusal.status, 0, {"X-Error-Code": refusal.error_code} if refusal.error_code else {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the game."""


def _sibling(name: str, content: bytes) -> dict[str, object]:
    row: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": git_sha1_of(content)}
    if len(content) >= LARGE_BYTES:
        row["lfs"] = {"sha256": sha256_of(content), "size": len(content), "pointerSize": 134}
    return row


def _tree_row(name: str, content: bytes) -> dict[str, object]:
    row: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": git_sha1_of(content)}
    if len(content) >= LARGE_BYTES:
        row["lfs"] = {"oid": sha256_of(content), "size": len(content), "pointerSize": 134}
    return row


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Inside, the hub answers."""
    hub = FakeHub()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url, hub.files_url = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
