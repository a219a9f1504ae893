"""A Hub on this machine: serves folders as repositories over HTTP, to the real client of huggingface_hub.

It answers what downloading and committing need: the repository's commit and files, the files themselves, creating a
repository, and commits of small files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import huggingface_hub.hf_api
import pytest
from huggingface_hub import constants


class LocalHub:
    """Repositories under root/models/OWNER/NAME and root/datasets/OWNER/NAME. `requests` has every path asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.down = False
        self.squashed = 0
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def folder(self, kind: str, repository: str) -> Path:
        return self.root / kind / repository

    def commit_of(self, folder: Path) -> str:
        """40 hexadecimal digits that change with the content."""
        digest = hashlib.sha1()
        for path in self.files(folder):
            digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
        return digest.hexdigest()

    def files(self, folder: Path) -> list[Path]:
        return sorted(path for path in folder.rglob("*") if path.is_file())


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.requests.append(self.path)
        if self.hub.down:
            return self._send(403, b"down")
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "api":
            return self._describe(parts[1], parts[2:])
        kind = "datasets" if parts[0] == "datasets" else "models"
        owner, name, resolve, _, *inside = parts[1:] if kind == "datasets" else parts
        folder = self.hub.folder(kind, f"{owner}/{name}")
        file = folder.joinpath(*inside)
        if resolve != "resolve" or not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = file.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        return self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": self.hub.commit_of(folder)})

    def _describe(self, kind: str, parts: list[str]) -> None:
        folder = self.hub.folder(kind, "/".join(parts[:2]))
        if not folder.is_dir():
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        files = [(str(path.relative_to(folder)), path) for path in self.hub.files(folder)]
        if parts[2:3] == ["tree"]:
            return self._json(
                [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": f"{number:040x}"}
                    for number, (name, path) in enumerate(files)
                ]
            )
        siblings = [{"rfilename": name} for name, _ in files]
        return self._json({"id": "/".join(parts[:2]), "sha": self.hub.commit_of(folder), "siblings": siblings})

    def do_POST(self) -> None:
        self.hub.requests.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.down:
            return self._send(403, b"down")
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[1:] == ["repos", "create"]:
            asked = json.loads(body)
            kind, repository = f"{asked.get('type', 'model')}s", f"{asked['organization']}/{asked['name']}"
            self.hub.folder(kind, repository).mkdir(parents=True, exist_ok=True)
            return self._json({"url": f"{self.hub.endpoint}/{kind}/{repository}"})
        kind, repository, action = parts[1], "/".join(parts[2:4]), parts[4]
        if action == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if action == "super-squash":
            self.hub.squashed += 1
            return self._json({})
        folder = self.hub.folder(kind, repository)
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                path = folder / entry["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(entry["value"]["content"]))
        oid = self.hub.commit_of(folder)
        return self._json({"commitUrl": f"{self.hub.endpoint}/{kind}/{repository}/commit/{oid}", "commitOid": oid})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def local_hub(root: Path, cache: Path) -> Iterator[LocalHub]:
    """A running LocalHub that this process's huggingface_hub talks to, with an own cache."""
    hub = LocalHub(root)
    thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)
        yield hub
    hub.server.shutdown()


@contextmanager
def offline() -> Iterator[None]:
    """As with HF_HUB_OFFLINE=1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield
