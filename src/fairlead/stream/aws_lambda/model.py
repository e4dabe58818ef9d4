"""The model of a function: from the settings, or as courses and MLflow's users name it in the environment."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.bundle.read import open_bundle
from fairlead.bundle.sources import default_source
from fairlead.errors import ConfigError
from fairlead.repository.deployments import Variant
from fairlead.repository.finder import deployment_of, is_bundle
from fairlead.stream.envelope import Envelope
from fairlead.stream.models import chosen_model, load
from fairlead.stream.scoring import Team

if TYPE_CHECKING:
    from fairlead.config import Settings

logger = logging.getLogger("fairlead.stream")


def default_sources(settings: Settings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Give what the environment names where the settings name no model.

    Raises
    ------
    ConfigError
        When neither does.
    """
    if settings.models:
        return ()
    if (source := default_source(environ)) is None:
        raise ConfigError(
            "expected a model: set MODEL_LOCATION to a bundle's directory in the image, or to where it is kept, such "
            "as s3://BUCKET/rides; or have `models` in the file that FAIRLEAD_CONFIG names"
        )
    return (source,)


def load_team(settings: Settings, environ: Mapping[str, str]) -> Team:
    """Bring the model that scores events here if it is elsewhere, and load it.

    Raises
    ------
    ConfigError
        When it is not clear which, or what is set for it or for events does not go here.
    BundleError, SourceError
        When it is none, or cannot be had.
    """
    default_sources(settings, environ)
    stream = settings.stream
    envelope = Envelope.of(stream)
    model = chosen_model(settings, None, None, environ)
    if found := model.needs_processes():
        raise ConfigError(
            f"{model.name or model.source}: only `fairlead stream`, which is a process that stays, has "
            f"{' and '.join(found)}: leave it out for Lambda"
        )
    bundle = open_bundle(_path(model.source, settings, environ))
    name = deployment_of(model, bundle).name
    member = load(Variant.of(bundle), name, envelope, stream.max_record_bytes)
    logger.info("%s %s: loaded from %s", name, member.variant.version, model.source)
    return Team(name, envelope, member)


def _path(source: str, settings: Settings, environ: Mapping[str, str]) -> Path:
    if is_bundle(source):
        return Path(source)
    from fairlead.bundle.obtain import Silent, obtain

    had = obtain(source, settings.cache, environ, Silent())
    for warning in had.warnings:
        logger.warning("%s", warning)
    return had.path
