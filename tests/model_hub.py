"""A hub on this machine: repositories of models over the protocol that huggingface_hub speaks."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


@dataclass
class Hub:
    """Files by repository and name; what was asked for.

    Attributes:
        gated: repositories that want a token, `TOKEN`.
        lost: names of files that are listed and not there.
        cut_after: bytes of a file after which a download breaks off, once.
    """

    repositories: Mapping[str, Mapping[str, bytes]]
    gated: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    cut_after: int | None = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, range
    endpoint: str = ""


TOKEN = "hf_local"


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve it on a port of this machine while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            hub.asked.append((self.command, path, self.headers.get("Range")))
            tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path)
            about = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/([^/]+))?", path)
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            match = tree or file or about
            repo = match[1] if match else ""
            if repo not in hub.repositories:
                return self._refuse(404, "RepoNotFound", "Repository not found")
            if repo in hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self._refuse(403, "GatedRepo", "Access to this model is restricted")
            files = hub.repositories[repo]
            if tree:
                listed = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files.items()
                ]
                return self._send(json.dumps(listed).encode(), body)
            if file is None:
                known = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
                return self._send(json.dumps(known).encode(), body)
            if file[3] not in files or file[3] in hub.lost:
                return self._refuse(404, "EntryNotFound", "Entry not found")
            return self._send_file(files[file[3]], body)

        def _refuse(self, code: int, kind: str, message: str) -> None:
            self.send_response(code)
            self.send_header("X-Error-Code", kind)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, data: bytes, body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def _send_file(self, data: bytes, body: bool) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            start = int(wanted[1]) if wanted else 0
            part = data[start:]
            self.send_response(206 if wanted else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part)))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if not body:
                return
            if hub.cut_after is not None:
                part, hub.cut_after = part[: hub.cut_after], None
                self.close_connection = True
            self.wfile.write(part)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
