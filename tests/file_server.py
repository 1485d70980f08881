"""A web server on the loopback whose faults a test chooses."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served, and how badly.

    Attributes:
        files: bytes by path, such as "/a/config.json".
        ranges: whether requests for a part of a file get it, or the whole.
        cuts: after how many bytes each of the next answers breaks off.
        lengths: whether answers say how long they are.
        statuses: of the next answers, instead of the file.
        shift: added to where a part is said to begin.
        moved: where a path redirects to.
        pause: seconds between each 10,000 bytes.
        requests: the path and the Range header of every request that came.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    lengths: bool = True
    statuses: list[int] = field(default_factory=list)
    shift: int = 0
    moved: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
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
            begin = 0
            if wanted is None:
                self.send_response(200)
            else:
                begin = int(wanted.removeprefix("bytes=").partition("-")[0])
                if begin >= len(data):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin + site.shift}-{len(data) - 1}/{len(data)}")
            data = data[begin:]
            if site.lengths:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            data = data[: site.cuts.pop(0)] if site.cuts else data
            for start in range(0, len(data), 10_000):
                self.wfile.write(data[start : start + 10_000])
                time.sleep(site.pause)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            # A client that has heard enough hangs up.
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
