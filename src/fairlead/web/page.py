"""The page at ``/``: what is served, a form that predicts, and live figures, for people with a browser.

Only hands out the plain files of `static`: the page itself reads ``openapi.json``, the models' answers and
``metrics`` with the browser's own means. The content security policy makes the browser refuse whatever
would come from elsewhere, and every script that is not one of these files.

Source: Content Security Policy Level 3, https://www.w3.org/TR/CSP3/
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parent / "static"
PAGE = "index.html"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# Trusted types forbid `innerHTML` and its like: names and descriptions of features are never HTML.
_POLICY = "; ".join(
    [
        "default-src 'self'",
        *(f"{what} 'none'" for what in ("object-src", "base-uri", "form-action", "frame-ancestors")),
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    # A browser asks each time and is told 304, so that a newer server is never shown by older files.
    "cache-control": "no-cache",
}


def routes(index: Callable[[], bytes] | None = None) -> list[Route]:
    """Make the routes of the page and of its files, which are read once, here.

    Parameters
    ----------
    index : makes the JSON that ``/`` gives to whoever does not ask for HTML, such as curl; None gives the page to all.
    """
    page = _sender(PAGE)

    async def show(request: Request) -> Response:
        if index is None or "text/html" in request.headers.get("accept", ""):
            response = await page(request)
        else:
            response = Response(index(), media_type="application/json")
        response.headers["vary"] = "accept"
        return response

    files = sorted(path.name for path in FOLDER.iterdir() if path.suffix in _MEDIA_TYPES and path.name != PAGE)
    return [Route("/", show), *(Route(f"/static/{name}", _sender(name)) for name in files)]


def _sender(name: str) -> Callable[[Request], Awaitable[Response]]:
    path = FOLDER / name
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "etag": tag}

    async def send(request: Request) -> Response:
        # A proxy that compresses makes the tag a weak one.
        if tag in request.headers.get("if-none-match", "").replace("W/", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers={**headers, "content-type": _MEDIA_TYPES[path.suffix]})

    return send
