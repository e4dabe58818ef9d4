"""Predictions over HTTP.

Layer L3: on top of `predict`, `bundle` and `monitor`, beside the other modes and never importing them. Predictions
are `Call`s to an `Endpoint`, everything else is Starlette; only `process` and `protocol` know uvicorn.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.errors import ServeError

if TYPE_CHECKING:
    from fairlead.web.app import App
    from fairlead.web.wsgi_app import WsgiApp


def asgi(*bundles: str | Path) -> App:
    """Make the ASGI app of bundles, for a server of one's own: ``gunicorn -k asgi 'fairlead.web:asgi("churn/")'``.

    The settings are those of the environment and of the file that `FAIRLEAD_CONFIG` names, as for
    `fairlead serve`; what concerns the socket is the server's business.

    Parameters
    ----------
    bundles : as `fairlead serve` takes them; what is not here, or no bundle, comes through the cache. The file may
        name more.

    Raises
    ------
    BundleError
        When a bundle is none or was changed.
    SourceError
        When a model cannot be had from where it lives.
    ServeError
        When there is no model, two have one name, or one asks for what only `fairlead serve` does.
    ConfigError
        When a setting is wrong.
    """
    from fairlead import config
    from fairlead.web.app import App
    from fairlead.web.gate import make_gate
    from fairlead.web.models import Loader, brought, expanded, load_all
    from fairlead.web.server import take_control

    settings = config.read(None, os.environ, {})
    models = expanded([*map(config.ModelSettings, map(str, bundles)), *settings.models.values()])
    if settings.jobs.roots:
        raise ServeError("jobs.roots: only `fairlead serve`, which keeps a process for them, has jobs: leave it out")
    for model in models:
        if found := model.needs_processes():
            raise ServeError(
                f"{model.name or model.source}: only `fairlead serve`, which keeps processes for it, has "
                f"{' and '.join(found)}: leave it out"
            )
    loader = Loader(settings.web.max_queue_rows)
    app = App(load_all(brought(models, settings.cache), loader), make_gate(settings.web), loader)
    take_control(app, models, settings.cache)
    return app


def wsgi(*bundles: str | Path) -> WsgiApp:
    """Make the WSGI app of bundles, for a server of one's own: ``gunicorn 'fairlead.web:wsgi("churn/")'``.

    Parameters and errors are those of `asgi`. Bundles are loaded here, so that processes that are forked
    later share them.
    """
    from fairlead.web.wsgi_app import WsgiApp

    return WsgiApp(asgi(*bundles))
