"""A server that speaks as much of the Hugging Face Hub's protocol as huggingface_hub needs to load and publish.

Names of repositories of data sets begin with ``datasets/``, as in their addresses.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest

from spintok.data.locations.remote import file_system


def commit_of(files: dict[str, bytes]) -> str:
    """A commit id of 40 digits that depends on the files."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


@dataclass
class Hub:
    """The state of the server.

    Attributes:
        repositories: the files of each revision of each repository.
        gated, private: repositories that need the token ``secret``.
        asked: the method and the path of each request.
        broken_after: bytes after which the connection of a download breaks, once; None never.
    """

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    broken_after: int | None = None
    url: str = ""

    def add(self, name: str, files: dict[str, bytes], revision: str = "main") -> str:
        """Store the files of a revision; its commit."""
        self.repositories.setdefault(name, {})[revision] = files
        return commit_of(files)

    def find(self, name: str, revision: str) -> dict[str, bytes] | None:
        revisions = self.repositories[name]
        return revisions.get(revision) or next((f for f in revisions.values() if commit_of(f) == revision), None)


@contextmanager
def connected_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Hub]:
    """A Hub, to which huggingface_hub sends its requests, and an empty cache in ``folder``."""
    pytest.importorskip("huggingface_hub")
    with serve_hub() as server:
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub-cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "no-token"))
        file_system.cache_clear()
        yield server
        file_system.cache_clear()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._read()

    def do_GET(self) -> None:
        self._read()

    def _read(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:1] == ["datasets"]:
            parts = ["/".join(parts[:2]), *parts[2:]]
        if parts[:1] == ["api"]:
            name = self._repository(parts)
            revision = "/".join(parts[5:]) or "main"
            if parts[4:5] == ["tree"]:
                revision = parts[5]
            if (files := self._files(name, revision)) is None:
                return
            if parts[4:5] == ["tree"]:
                self._send_tree(files, "/".join(parts[6:]), recursive="recursive=true" in address.query.lower())
            else:
                self._send_json(self._description(name, files))
        elif parts[2:3] == ["resolve"]:
            files = self._files("/".join(parts[:2]), parts[3])
            if files is not None:
                self._send_file(files, "/".join(parts[4:]))
        else:
            self._fail(404, "EntryNotFound")

    @staticmethod
    def _repository(parts: list[str]) -> str:
        """The name of a repository in a path of the API; names of data sets begin as in their addresses."""
        return "/".join(parts[2:4]) if parts[1] == "models" else "/".join(parts[1:4])

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"POST {path}")
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length is not None else b"".join(self._chunks())
        parts = path.strip("/").split("/")
        if path != "/api/validate-yaml" and self.headers.get("Authorization") != "Bearer secret":
            self._fail(401, "")
        elif path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            known = name in self.hub.repositories
            if not known:
                self.hub.repositories[name] = {"main": {}}
                if wanted.get("private") or wanted.get("visibility") == "private":
                    self.hub.private.add(name)
            self._send_json({"url": f"{self.hub.url}/{name}", "id": name}, 409 if known else 200)
        elif path == "/api/validate-yaml":
            self._send_json({"errors": [], "warnings": []})
        elif parts[4:5] == ["preupload"]:
            found = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            self._send_json({"files": found})
        elif parts[4:5] == ["commit"]:
            name = self._repository(parts)
            files = dict(self.hub.repositories[name].get(parts[5], {}))
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "deletedFile" and files.pop(line["value"]["path"], None) is None:
                    self._fail(404, "EntryNotFound")
                    return
            commit = self.hub.add(name, files, parts[5])
            url = f"{self.hub.url}/{name}/commit/{commit}"
            self._send_json({"commitUrl": url, "commitOid": commit, "success": True, "hookOutput": ""})
        else:
            self._fail(404, "EntryNotFound")

    def _files(self, name: str, revision: str) -> dict[str, bytes] | None:
        may = self.headers.get("Authorization") == "Bearer secret"
        if name not in self.hub.repositories or (name in self.hub.private and not may):
            self._fail(401 if not may else 404, "RepoNotFound")
        elif name in self.hub.gated and not may and "/resolve/" in self.path:
            self._fail(403, "GatedRepo")
        elif (files := self.hub.find(name, revision)) is None:
            self._fail(404, "RevisionNotFound")
        else:
            return files
        return None

    def _description(self, name: str, files: dict[str, bytes]) -> object:
        siblings = [{"rfilename": path, "size": len(data), "blobId": "0" * 40} for path, data in files.items()]
        return {
            "id": name,
            "modelId": name,
            "sha": commit_of(files),
            "siblings": siblings,
            "tags": [],
            "private": False,
        }

    def _send_tree(self, files: dict[str, bytes], folder: str, *, recursive: bool) -> None:
        """What is in a folder, "" for all; folders below it only where they are not opened."""
        found: dict[str, object] = {}
        for path, data in files.items():
            below = path.removeprefix(f"{folder}/") if folder else path
            if folder and below == path:
                continue
            name, inner, _ = below.partition("/")
            if inner and not recursive:
                found[name] = {"type": "directory", "path": path.removesuffix(below) + name, "oid": "0" * 40, "size": 0}
            else:
                found[path] = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if folder and not found:
            self._fail(404, "EntryNotFound")
        else:
            self._send_json(list(found.values()))

    def _send_file(self, files: dict[str, bytes], path: str) -> None:
        if path not in files:
            self._fail(404, "EntryNotFound")
            return
        data = files[path]
        start, end = 0, len(data)
        asked = self.headers.get("Range")
        if asked is not None:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else end, end)
        self.send_response(200 if asked is None else 206)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit_of(files))
        self.send_header("Content-Length", str(end - start))
        if asked is not None:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            stop = end if self.hub.broken_after is None else min(end, start + self.hub.broken_after)
            self.wfile.write(data[start:stop])
            if stop < end:
                self.hub.broken_after = None

    def _send_json(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _fail(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code or "Invalid credentials")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _chunks(self) -> Iterator[bytes]:
        """The body of a request in chunks, of which the last is empty."""
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A Hub on this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
