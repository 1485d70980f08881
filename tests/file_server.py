"""A web server on the loopback interface with the faults that a test asks for."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """The files and faults of a server.

    Attributes:
        files: content by path, such as "/a/config.json".
        ranges: whether the server honours Range headers or sends whole files.
        cuts: the number of bytes after which each of the next responses breaks off.
        lengths: whether responses have a Content-Length.
        statuses: HTTP errors to send in place of the next responses.
        moved: where a path redirects to.
        pause: seconds to wait after each ``chunk`` bytes.
        chunk: see ``pause``.
        requests: the path and the Range header of every request received.
        url: the address, once it is served.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    lengths: bool = True
    statuses: list[int] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    chunk: int = 10_000
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve until the block ends; ``site.url`` is the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            site.requests.append((self.path, wanted))
            if site.statuses:
                self.send_error(site.statuses.pop(0))
            elif self.path in site.moved:
                self.send_response(302)
                self.send_header("Location", site.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif self.path not in site.files:
                self.send_error(404)
            else:
                self._send(site.files[self.path], wanted if site.ranges else None)

        def _send(self, data: bytes, wanted: str | None) -> None:
            total = len(data)
            if wanted is None:
                self.send_response(200)
            else:
                begin, _, last = wanted.removeprefix("bytes=").partition("-")
                if int(begin) >= total:
                    self.send_error(416)
                    return
                data = data[int(begin) : int(last) + 1 if last else total]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{int(begin) + len(data) - 1}/{total}")
            if site.lengths:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            data = data[: site.cuts.pop(0)] if site.cuts else data
            for start in range(0, len(data), site.chunk):
                self.wfile.write(data[start : start + site.chunk])
                time.sleep(site.pause)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            # A client may close the connection at any time.
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
