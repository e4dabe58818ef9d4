"""Predictions over HTTP.

Layer L3: on top of `predict` and `bundle`, beside the other modes and never importing them. The hot
routes are raw ASGI, everything else is Starlette behind them; only `process` knows uvicorn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairlead.web.app import App


def asgi(*bundles: str | Path) -> App:
    """Make the ASGI app of bundles, for a server of one's own: ``gunicorn -k … 'fairlead.web:asgi("churn/")'``.

    Raises
    ------
    BundleError
        When a bundle is none or was changed.
    ServeError
        When two models have one name.
    """
    from fairlead.web.app import make_app
    from fairlead.web.bundles import load_all

    return make_app(load_all([Path(bundle) for bundle in bundles]))
