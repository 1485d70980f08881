"""A small S3 server for tests, with faults: 500s, 503s, slow and truncated answers.

It knows what s3fs asks for: GET with ranges, HEAD, PUT with ``If-None-Match: *``, DELETE, ListObjectsV2. One bucket is
enough; signatures are not checked.
"""

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

import spintok.data.locations.remote
from spintok.data.locations.remote import file_system


class S3Server(ThreadingHTTPServer):
    """Objects in memory.

    Attributes:
        objects: contents by "bucket/key".
        faults: the probability of each of "500", "503", "slow", "truncated", "lost" (done, but the answer is lost),
            "damaged" (a PUT stores another byte).
        met: how often each was injected.
        asked: the requests, such as "GET bucket/key".
        denied: buckets that nobody may read.
        conditional: whether a PUT may have a condition; if not, it is ignored, as by servers that do not know it.
        sent: bytes of contents in answers.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.faults: dict[str, float] = {}
        self.met: Counter[str] = Counter()
        self.asked: list[str] = []
        self.denied: set[str] = set()
        self.conditional = True
        self.sent = 0
        self.random = random.Random(0)
        self.guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A running server."""
    server = S3Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def connected_s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A running server that ``s3://`` addresses lead to, asked again without the usual pauses."""
    pytest.importorskip("s3fs")
    with s3_server() as running:
        for name, value in (
            ("AWS_ENDPOINT_URL", running.url),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            # Botocore and s3fs wait for seconds before their own retries; ours are tested.
            ("AWS_MAX_ATTEMPTS", "1"),
        ):
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(spintok.data.locations.remote, "PAUSES", (0.01,) * 8)
        file_system.cache_clear()
        import s3fs

        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
        s3fs.S3FileSystem.clear_instance_cache()
        yield running
        file_system.cache_clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Or each small answer waits 40 ms for an acknowledgement.
    disable_nagle_algorithm = True
    server: S3Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self._body()
        fault = self._fault()
        if fault in ("500", "503"):
            self._answer(int(fault), _error("InternalError" if fault == "500" else "SlowDown"))
            return
        if fault == "slow":
            time.sleep(0.3)
        if fault == "damaged" and self.command == "PUT" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        status, content, headers = self._do(body)
        if fault == "lost":
            self.close_connection = True
            return
        self._answer(status, content, headers, truncated=fault == "truncated")

    def _fault(self) -> str | None:
        with self.server.guard:
            draw = self.server.random.random()
            for name, probability in self.server.faults.items():
                if draw < probability:
                    self.server.met[name] += 1
                    return name
                draw -= probability
        return None

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            chunks, rest = [], data
            while rest:
                size, _, rest = rest.partition(b"\r\n")
                length = int(size.split(b";")[0], 16)
                if length == 0:
                    break
                chunks.append(rest[:length])
                rest = rest[length + 2 :]
            data = b"".join(chunks)
        return data

    def _do(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        address = urlsplit(self.path)
        name, query = unquote(address.path).strip("/"), parse_qs(address.query)
        objects, bucket = self.server.objects, name.partition("/")[0]
        with self.server.guard:
            self.server.asked.append(f"{self.command} {name}")
            if bucket in self.server.denied:
                return 403, _error("AccessDenied"), {}
            match self.command:
                case "PUT":
                    conditional = self.server.conditional and self.headers.get("If-None-Match") == "*"
                    if conditional and name in objects:
                        return 412, _error("PreconditionFailed"), {}
                    objects[name] = body
                    return 200, b"", {"ETag": _etag(body)}
                case "DELETE":
                    objects.pop(name, None)
                    return 204, b"", {}
                case "GET" if "list-type" in query:
                    return 200, self._list(name, query), {"Content-Type": "application/xml"}
            if name == bucket and any(key.startswith(f"{bucket}/") for key in objects):
                return 200, b"", {}
            if name not in objects:
                return 404, _error("NoSuchKey"), {}
            content = objects[name]
        headers = {"ETag": _etag(content), "Last-Modified": formatdate(0, usegmt=True)}
        if (wanted := self.headers.get("Range")) is None:
            return 200, content, headers
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(content)), len(content) - 1)
        return 206, content[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"}

    def _list(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        rows, folders = [], set()
        for name, content in sorted(self.server.objects.items()):
            where, _, key = name.partition("/")
            if where != bucket or not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            rows.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size><ETag>{_etag(content)}</ETag>"
                "<LastModified>1970-01-01T00:00:00.000Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
            )
        rows += [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in sorted(folders)]
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(rows)}</KeyCount><MaxKeys>1000</MaxKeys>"
            f"<IsTruncated>false</IsTruncated>{''.join(rows)}</ListBucketResult>"
        ).encode()

    def _answer(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, *, truncated: bool = False
    ) -> None:
        self.send_response(status)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.server.sent += len(content)
            self.wfile.write(content[: len(content) // 2] if truncated else content)
        if truncated:
            self.close_connection = True


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
