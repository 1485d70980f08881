"""A headless Chromium over its DevTools protocol: real keys, real pointer, the console, the screen.

Only what the tests need, over the browser's own pipe (``--remote-debugging-pipe``: JSON with a zero byte after each
message, in on descriptor 3, out on 4), so that nothing but the browser has to be installed.
"""

import base64
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

__all__ = ["Chromium", "find_chromium"]

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--mute-audio",
    "--remote-debugging-pipe",
]
_KEYS = {"Enter": (13, "\r"), " ": (32, " "), "Tab": (9, ""), "ArrowLeft": (37, ""), "ArrowUp": (38, "")}
_KEYS |= {"ArrowRight": (39, ""), "ArrowDown": (40, ""), "Home": (36, ""), "End": (35, ""), "Escape": (27, "")}


def find_chromium() -> str | None:
    """The browser's path, None when there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


class Chromium:
    """One browser with one page. Use it in a ``with`` block."""

    def __init__(self, program: str, profile: Path) -> None:
        # The browser wants descriptors 3 and 4; a shell puts them there.
        command_out, self._out = os.pipe()
        self._in, reply_in = os.pipe()
        shell = f'exec "$0" "$@" 3<&{command_out} 4>&{reply_in}'
        arguments = [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, *arguments],
            pass_fds=(command_out, reply_in),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(command_out)
        os.close(reply_in)
        self._buffer = b""
        self._number = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> "Chromium":
        targets = self("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)
        os.close(self._in)
        # Its whole process group: the browser's helpers too.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and give its result; events that come meanwhile are kept."""
        number = next(self._number)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read(60)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _read(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(f"the browser said nothing for {seconds} s")
            piece = os.read(self._in, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has gone")
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file and wait until it has loaded; forgets earlier events."""
        self.view(width, height, dark)
        self.events.clear()
        self("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read(60))
        self.wait("document.readyState === 'complete'")

    def view(self, width: int, height: int, dark: bool) -> None:
        """The size of the window and the colours that the system prefers."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Until an expression in the page is true."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"still not true after {seconds} s: {condition}")
            time.sleep(0.05)

    def press(self, key: str, times: int = 1) -> None:
        """Press and release a key."""
        code, text = _KEYS[key] if key in _KEYS else (ord(key.upper()), key)
        for _ in range(times):
            named = {"key": key, "windowsVirtualKeyCode": code}
            self("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **named)
            self("Input.dispatchKeyEvent", type="keyUp", **named)

    def move(self, x: float, y: float) -> None:
        """Move the pointer."""
        self("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        """Move the pointer and click."""
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1, buttons=1)

    def box(self, selector: str) -> dict[str, float]:
        """Where an element is in the window, after scrolling to it: x, y, width, height."""
        script = f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
        script += "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect(); "
        return self.run(script + "return {x: b.x, y: b.y, width: b.width, height: b.height}; })()")

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """The page as a PNG."""
        found = self("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the console, uncaught exceptions and failed loads since the page was opened."""
        found = []
        for event in self.events:
            match event.get("method"):
                case "Runtime.exceptionThrown" | "Network.loadingFailed":
                    found.append(json.dumps(event["params"]))
                case "Log.entryAdded" if event["params"]["entry"]["level"] in ("error", "warning"):
                    found.append(json.dumps(event["params"]["entry"]))
                case "Runtime.consoleAPICalled" if event["params"]["type"] in ("error", "warning", "assert"):
                    found.append(json.dumps(event["params"]))
        return found

    @property
    def addresses(self) -> list[str]:
        """What the page asked for since it was opened."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
