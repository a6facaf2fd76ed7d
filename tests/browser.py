"""Headless Chromium, driven over its debugging protocol through a pipe: no port, no library."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
"""The program, or None where there is none."""

NONE = "there is no chromium here (Debian's package chromium)"


class Browser:
    """One page of a browser without a window; a context manager. What its console says is in `said`."""

    def __init__(self, profile: Path) -> None:
        assert BROWSER is not None
        out, self._to = os.pipe()
        self._from, into = os.pipe()
        self._ends = [self._to, self._from]
        flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --no-first-run"
        flags += " --disable-extensions --disable-background-networking --remote-debugging-pipe"

        def place() -> None:
            high = [os.dup2(fd, fd + 100) for fd in (out, into)]  # clear of 3 and 4
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [BROWSER, *flags.split(), f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(out)
        os.close(into)
        self._buffer, self._id, self._session = b"", 0, ""
        self.said: list[str] = []
        self.asked: list[str] = []
        """Addresses that the page asked for, but data: ones."""

    def __enter__(self) -> Browser:
        pages = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for end in self._ends:
            os.close(end)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to one call of the protocol."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next()
            if got.get("id") == self._id:
                assert "error" not in got, got
                return dict(got["result"])

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + 60
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._from, 2**20)
            assert data, "the browser has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        got: dict[str, Any] = json.loads(line)
        method, params = got.get("method", ""), got.get("params", {})
        if method == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(a.get("value")) for a in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.said.append(params["exceptionDetails"]["text"])
        elif method == "Log.entryAdded":
            self.said.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith("data:"):
            self.asked.append(params["request"]["url"])
        return got

    def open(self, page: Path | str, *, width: int = 1280, dark: bool = False) -> None:
        """Load a file or an address, as a window of this width shows it."""
        address = page if isinstance(page, str) else page.resolve().as_uri()
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        assert "errorText" not in self.call("Page.navigate", url=address)
        end = time.monotonic() + 60
        while self.value("document.readyState + location.href") != f"complete{address}":
            assert time.monotonic() < end, "the page does not load"
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        """Press keys one after another: letters, digits, or names such as Enter."""
        for key in keys:
            text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def wait(self, script: str, value: Any = True) -> None:
        """Until an expression is `value` in the page."""
        end = time.monotonic() + 60
        while (found := self.value(script)) != value:
            assert time.monotonic() < end, f"{script} is {found!r}, not {value!r}"
            time.sleep(0.02)

    def value(self, script: str) -> Any:
        """What an expression is in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        """What a printer gets."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"]))
