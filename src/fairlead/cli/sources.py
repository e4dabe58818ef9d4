"""How a verb has a model, wherever it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from fairlead import display

if TYPE_CHECKING:
    from fairlead.bundle.obtain import Obtained


def obtained(source: str) -> Obtained:
    """Have a bundle of a source on this machine, and tell what there is to be told of it."""
    from fairlead import config
    from fairlead.bundle.obtain import obtain

    settings = config.read(None, os.environ, {}).cache
    with display.progress() as progress:
        found = obtain(source, settings, os.environ, progress)
    warn(*found.warnings)
    return found


def warn(*warnings: str) -> None:
    """Tell warnings on standard error."""
    for warning in warnings:
        click.echo(f"fairlead: warning: {warning}", err=True)
