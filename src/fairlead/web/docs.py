"""The page at ``/docs``: Swagger UI from the installed `swagger_ui` package, without any other host.

The package is only a place that holds the files; it is never imported. The content security policy
makes the browser itself refuse whatever would come from elsewhere.

Source: https://swagger.io/docs/open-source-tools/swagger-ui/usage/configuration/
"""

from __future__ import annotations

import html
from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from fairlead.errors import ServeError

FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")

_POLICY = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}
_CACHED = {**_POLICY, "cache-control": "public, max-age=86400"}

# Addresses are relative, so that the page works behind a prefix too.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# Without `validatorUrl: null` the page shows a badge from validator.swagger.io.
_START = """window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null,
  deepLinking: true,
  tryItOutEnabled: true,
  defaultModelsExpandDepth: 2,
  defaultModelExpandDepth: 5,
});
"""


def routes(title: str) -> list[Route]:
    """Make the routes of the page and of the files it needs.

    Raises
    ------
    ServeError
        When the `swagger_ui` package is not installed.
    """
    folder = _folder()
    page = _PAGE.format(title=html.escape(title))

    async def show(request: Request) -> Response:
        return Response(page, media_type="text/html", headers=_POLICY)

    async def start(request: Request) -> Response:
        return Response(_START, media_type="text/javascript", headers=_POLICY)

    def served(name: str) -> Route:
        async def send_file(request: Request) -> Response:
            return FileResponse(folder / name, headers=_CACHED)

        return Route(f"/docs/{name}", send_file)

    return [Route("/docs", show), Route("/docs/start.js", start), *map(served, FILES)]


def _folder() -> Path:
    spec = find_spec("swagger_ui")
    if spec is None or spec.origin is None:
        raise ServeError("the files of /docs are missing: run `pip install swagger-ui-py`")
    return Path(spec.origin).parent / "static"
