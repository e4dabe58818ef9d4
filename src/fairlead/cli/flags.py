"""Flags and arguments that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

FilePath = click.Path(path_type=Path)
source_argument = click.argument("source")
config_option = click.option(
    "--config", "config_file", type=FilePath, help="Settings as YAML; the environment and flags go over it."
)


class Names(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "names"

    def convert(self, value: str, parameter: object, context: object) -> tuple[str, ...]:
        return tuple(name.strip() for name in value.split(",") if name.strip())


class Setting(click.Option):
    """A flag that is a setting: kept aside, for `config.read` to put over the other sources.

    Attributes
    ----------
    prefix : of its name there: none for the web's, ``stream_`` for a stream's.
    """

    prefix = ""

    def __init__(self, *names: Any, **how: Any) -> None:
        super().__init__(*names, expose_value=False, callback=self._keep, **how)

    def _keep(self, context: click.Context, parameter: click.Parameter, value: object) -> None:
        context.ensure_object(dict)[f"{self.prefix}{parameter.name}"] = value
