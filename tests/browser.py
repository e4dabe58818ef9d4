"""A headless Chromium that reaches nothing but 127.0.0.1, driven through its DevTools protocol.

Source: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

START_S = 30
WAIT_S = 15
QUIET_S = 0.15
# The error of the protocol for "Inspected target navigated or closed" and the like.
_LEFT = -32000
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0"),
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
# What the eye gets: of each text its colour and the ground behind it, as WCAG 2.2 section 1.4.3 compares them.
FAINT = """(() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const part = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const text = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || e.matches('input, select');
    if (!text || !e.checkVisibility() || e.closest('svg, datalist, option')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${e.tagName}.${e.className} ${e.textContent.slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return found;
})()"""


class Browser:
    """A Chromium process with a profile of its own; use it as a context."""

    def __init__(self, profile: Path) -> None:
        chromium = shutil.which("chromium")
        if chromium is None:
            pytest.skip("chromium is not installed: run `apt-get install chromium`")
        self._port_file = profile / "DevToolsActivePort"
        self._process = subprocess.Popen(
            [chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Browser:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(FileNotFoundError, IndexError):
                self._url = f"http://127.0.0.1:{self._port_file.read_text().splitlines()[0]}"
                return self
            time.sleep(0.02)
        self.__exit__()
        raise AssertionError("chromium did not start")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def open(self, url: str, width: int = 1280, height: int = 900, scheme: str = "light") -> Tab:
        """Show a page in a new tab that looks as told."""
        target = httpx.put(f"{self._url}/json/new?about:blank").json()
        tab = Tab(target["webSocketDebuggerUrl"])
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.send(f"{domain}.enable")
        phone = width < 600
        tab.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1 + phone, mobile=phone
        )
        tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        # Only of the page that keys would go to a browser draws where the focus is.
        tab.send("Emulation.setFocusEmulationEnabled", enabled=True)
        tab.go(url)
        return tab


class PageLeftError(AssertionError):
    """What was asked of a page is not answered, since another page takes its place."""


class Tab:
    """One page: what it holds, what it asked for, and what it complained of; use it as a context."""

    def __init__(self, url: str) -> None:
        self._opened = contextlib.ExitStack()
        self._socket = self._opened.enter_context(connect(url, max_size=None, compression=None, proxy=None))
        self._last_id = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._under_way: dict[str, str] = {}  # the page that asked, by request

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(PageLeftError):
            self.send("Page.close")
        self._opened.close()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; events that come meanwhile are noted."""
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=WAIT_S * 2))
            if message.get("id") == self._last_id:
                if "error" in message:
                    raise (PageLeftError if message["error"]["code"] == _LEFT else AssertionError)(message)
                result: dict[str, Any] = message["result"]
                return result
            self._note(message.get("method", ""), message.get("params", {}))

    def go(self, url: str) -> None:
        """Show another page; what is in it comes later."""
        self.send("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """Give the value of an expression, awaited if it is a promise."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str, timeout_s: float = WAIT_S) -> Any:
        """Wait until an expression is truthy, and give its value."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(PageLeftError):
                if value := self.run(condition):
                    return value
            time.sleep(0.03)
        raise AssertionError(f"still not: {condition}\n{self.complaints}\n{self.run('document.body.innerText')}")

    def settle(self, timeout_s: float = WAIT_S) -> None:
        """Wait until what was asked for is answered, and nothing more is asked for."""
        deadline = time.monotonic() + timeout_s
        quiet_since = time.monotonic()
        while time.monotonic() < quiet_since + QUIET_S:
            assert time.monotonic() < deadline, f"{len(self._under_way)} requests are still under way"
            asked = len(self.requests)
            self.wait("new Promise(done => setTimeout(() => done(true), 30))")
            if self._under_way or len(self.requests) > asked:
                quiet_since = time.monotonic()

    def is_wider_than_seen(self) -> bool:
        """Whether one has to scroll sideways to see all of the page."""
        return bool(self.run("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def text(self, selector: str) -> str:
        """Give the text that is seen in the first element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def fill(self, selector: str, value: str) -> None:
        """Replace what is in a field by real key strokes."""
        self.run(f"{{const field = document.querySelector({json.dumps(selector)}); field.focus(); field.select()}}")
        self.send("Input.insertText", text=value)

    def press(self, key: str) -> None:
        more = {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Tab": 9}[key]
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        """Write a PNG, of the whole page or of what is seen."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
            self._under_way[event["requestId"]] = event["loaderId"]
        elif method in ("Network.loadingFinished", "Network.loadingFailed"):
            self._under_way.pop(event["requestId"], None)
        elif method == "Page.frameNavigated":
            # Nobody tells what becomes of requests of a page that was left.
            page = event["frame"]["loaderId"]
            self._under_way = {request: asker for request, asker in self._under_way.items() if asker == page}
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(event["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(event["args"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{event['entry']['source']}: {event['entry']['text']} {event['entry'].get('url')}")
