"""Predictions over HTTP.

Layer L3: on top of `predict`, `bundle` and `monitor`, beside the other modes and never importing them. Predictions
are `Call`s to an `Endpoint`, everything else is Starlette; only `process` and `protocol` know uvicorn.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairlead.web.app import App
    from fairlead.web.wsgi_app import WsgiApp


def asgi(*bundles: str | Path) -> App:
    """Make the ASGI app of bundles, for a server of one's own: ``gunicorn -k asgi 'fairlead.web:asgi("churn/")'``.

    The settings are those of the environment and of the file that `FAIRLEAD_CONFIG` names, as for
    `fairlead serve`; what concerns the socket is the server's business.

    Parameters
    ----------
    bundles : directories made by `fairlead build`; the file may name more.

    Raises
    ------
    BundleError
        When a bundle is none or was changed.
    ServeError
        When there is no model, two have one name, or one is to run in a process of its own.
    ConfigError
        When a setting is wrong.
    """
    from fairlead import config
    from fairlead.errors import ServeError
    from fairlead.web.app import App
    from fairlead.web.gate import make_gate
    from fairlead.web.models import load_all

    settings = config.read(None, os.environ, {})
    for name, model in settings.models.items():
        if model.isolation == "process":
            raise ServeError(
                f"{name}: only `fairlead serve` runs models in processes of their own: leave isolation out"
            )
    models = [*map(config.ModelSettings, map(str, bundles)), *settings.models.values()]
    return App(load_all(models, settings.web.max_queue_rows), make_gate(settings.web))


def wsgi(*bundles: str | Path) -> WsgiApp:
    """Make the WSGI app of bundles, for a server of one's own: ``gunicorn 'fairlead.web:wsgi("churn/")'``.

    Parameters and errors are those of `asgi`. Bundles are loaded here, so that processes that are forked
    later share them.
    """
    from fairlead.web.wsgi_app import WsgiApp

    return WsgiApp(asgi(*bundles))
