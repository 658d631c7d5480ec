"""A server on this machine that speaks what of the hub's protocol huggingface_hub needs for data sets."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIBLINGS = 50_000  # names that the hub gives at once, at most


class Hub(ThreadingHTTPServer):
    """`datasets`: the files of each data set by name. `asked`: every request, as METHOD and path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.datasets: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if not path.startswith("/api/datasets/"):
            return self._file(body=True)
        self.server.asked.append(f"GET {path}")
        name, _, rest = path.removeprefix("/api/datasets/").partition("/tree/")
        name, _, _ = name.partition("/revision/")
        files = self.server.datasets.get(name)
        if files is None:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if rest:
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": _oid(data)} for path, data in files.items()
            ]
            return self._json(entries)
        return self._json(
            {
                "id": name,
                "sha": COMMIT,
                "private": False,
                "siblings": [{"rfilename": path} for path in list(files)[:SIBLINGS]],
                "tags": [],
            }
        )

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") is None:
            return self._json({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.server.datasets.setdefault(name, {})
            return self._json({"url": f"{self.server.url}/datasets/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        name, _, action = path.removeprefix("/api/datasets/").partition("/preupload/")
        if action:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        name, _, action = path.removeprefix("/api/datasets/").partition("/commit/")
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.server.datasets[name][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        url = f"{self.server.url}/datasets/{name}/commit/{COMMIT}"
        return self._json({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def _file(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        name, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
        data = self.server.datasets.get(name, {}).get(rest.partition("/")[2])
        if data is None:
            code = "EntryNotFound" if name in self.server.datasets else "RepoNotFound"
            return self._answer(404, b"", {"X-Error-Code": code})
        self._answer(200, data, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": COMMIT}, body=body)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, status: int, data: bytes, headers: dict[str, str], *, body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
