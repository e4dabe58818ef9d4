"""A registered model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `models:/NAME/STAGE`, `models:/NAME/latest`.

Resolving asks the registry once: whoever has the version in a cache needs nothing else. Layer L1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairlead.bundle.sources import artifacts, registry
from fairlead.bundle.sources.store import Resolved
from fairlead.errors import SourceError

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

FORM = "models:/NAME@ALIAS"
_STAGES = {stage.lower(): stage for stage in ("Production", "Staging", "Archived", "None")}
_LATEST = "latest"


@dataclass(frozen=True)
class ModelSource:
    """A version of a registered model.

    Parameters
    ----------
    alias, number, stage : one of them is given, or none for the newest version.
    """

    name: str
    alias: str | None = None
    number: str | None = None
    stage: str | None = None

    @property
    def text(self) -> str:
        if self.alias is not None:
            return f"models:/{self.name}@{self.alias}"
        return f"models:/{self.name}/{self.number or self.stage or _LATEST}"

    def resolve(self, settings: CacheSettings, environ: Mapping[str, str]) -> Resolved:
        asked = registry.connect(settings, environ)
        if self.alias is not None:
            version = asked.by_alias(self.name, self.alias)
        elif self.number is not None:
            version = asked.by_number(self.name, self.number)
        else:
            version = asked.newest(self.name, self.stage)
        key = f"models:/{version.name}/{version.number} at {asked.where} of {version.created_ms} from {version.source}"
        store = artifacts.of_version(version, asked, settings, environ)
        return Resolved(self.text, key, self.name, version.number, store, self._warnings(version.number))

    def _warnings(self, number: str) -> tuple[str, ...]:
        if self.stage is None:
            return ()
        return (
            f"{self.text}: stages are deprecated in MLflow: give version {number} an alias "
            f"and use models:/{self.name}@champion",
        )


def parse(text: str) -> ModelSource:
    """Read a ``models:/`` source.

    Raises
    ------
    SourceError
        For a wrong form.
    """
    name, slash, suffix = text.removeprefix("models:/").partition("/")
    if not slash and "@" in name:
        name, _, alias = name.rpartition("@")
        if name and alias:
            return ModelSource(name, alias=alias)
    elif name and "@" not in name and suffix and "/" not in suffix:
        if suffix.isascii() and suffix.isdigit():
            return ModelSource(name, number=str(int(suffix)))
        if suffix.lower() == _LATEST:
            return ModelSource(name)
        if suffix.lower() in _STAGES:
            return ModelSource(name, stage=_STAGES[suffix.lower()])
    raise SourceError(
        f"{text}: expected models:/NAME@ALIAS, models:/NAME/VERSION (a number), models:/NAME/latest or "
        f"models:/NAME/STAGE ({', '.join(_STAGES.values())})"
    )


def name_of(text: str) -> str:
    """Read ``models:/NAME``, which names a model to register a version of.

    Raises
    ------
    SourceError
        For any other form.
    """
    name = text.removeprefix("models:/")
    if name == text or not name or "/" in name or "@" in name:
        raise SourceError(f"{text}: expected models:/NAME, a model's name without a version or an alias")
    return name
