"""A real Chromium, driven over its pipe: no driver, no package, no port."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
LIMIT = 60.0
DRAWN = "document.documentElement?.getAttribute('data-drawn') === 'yes'"


def find_chromium() -> str | None:
    """Returns the path of a Chromium or Chrome, None if there is none."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        None,
    )


@dataclass
class Page:
    """One tab: ``problems`` collects console errors, uncaught exceptions and refused loads; ``requests`` addresses."""

    reader: int
    writer: int
    session: str = ""
    number: int = 0
    rest: bytes = b""
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends one command of the DevTools protocol and returns its result."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def receive(self) -> dict[str, Any]:
        """Returns the next message; events that tell of problems and requests are noted."""
        while b"\0" not in self.rest:
            chunk = os.read(self.reader, 1 << 20)
            assert chunk, "the browser has ended"
            self.rest += chunk
        line, _, self.rest = self.rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:600])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(params["args"])[:600])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return message

    def evaluate(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression (awaited)."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression: str) -> None:
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + LIMIT
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"still false after {LIMIT} s: {expression}; {self.problems}"
            time.sleep(0.05)

    def open(self, path: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Opens a file at a width, light or dark, and waits until its figures are drawn."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.theme(dark)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait(DRAWN)

    def theme(self, dark: bool) -> None:
        """Sets what ``prefers-color-scheme`` answers."""
        value = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[value])

    def point(self, selector: str, across: float, down: float) -> None:
        """Moves the pointer over an element, to a place given as shares of its width and height."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{found}.scrollIntoView({{block: 'center'}})")
        box = self.evaluate(f"{found}.getBoundingClientRect().toJSON()")
        for aside in (3, 0):
            x, y = box["x"] + box["width"] * across - aside, box["y"] + box["height"] * down
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, target: Path) -> None:
        """Writes the whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        target.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def chromium(binary: str, profile: Path) -> Iterator[Page]:
    """Starts a browser with one empty tab and ends it afterwards."""
    low = (*os.pipe(), *os.pipe())
    # Moved up, out of the way of 3 and 4, where the browser expects its ends. They close on exec but for pass_fds.
    to_read, to_write, back_read, back_write = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in low)
    for fd in low:
        os.close(fd)
    script = f'exec "$@" 3<&{to_read} 4>&{back_write} {to_read}<&- {back_write}>&-'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", binary, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"],
        pass_fds=(to_read, back_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(back_write)
    try:
        page = Page(reader=back_read, writer=to_write)
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        yield page
        page.session = ""
        page.call("Browser.close")
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()
        process.wait()
        os.close(back_read)
        os.close(to_write)
