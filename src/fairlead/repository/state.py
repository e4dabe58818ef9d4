"""Changes of traffic made while a server runs, kept for its next start.

One JSON file a deployment in the state directory. A kept change counts only while the canary is configured as it was
when the change was made: whoever edits the configuration has the last word.

Layer L2; imports msgspec and what writes files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from fairlead.bundle.disk import replace_file
from fairlead.config import CanarySettings, Share

logger = logging.getLogger("fairlead.repository")


class Rollback(Struct, frozen=True):
    """A canary that was taken back.

    Parameters
    ----------
    digest : of its bundle; another one starts anew.
    reason : why, for people.
    """

    digest: str
    reason: str


class CanaryTraffic(Struct, frozen=True):
    """What a canary gets.

    Parameters
    ----------
    weight : the share of requests, from 0 to 1.
    rolled_back : why that is none, when it was taken back.
    """

    weight: float
    rolled_back: str | None = None


class _Kept(Struct, frozen=True, kw_only=True):
    """A change, and what was configured when it was made."""

    source: str
    configured_weight: float
    sticky: str | None
    weight: Share | None = None
    rollback: Rollback | None = None


class _File(Struct, frozen=True):
    """What a file holds; `deployment` is for people."""

    deployment: str
    canaries: dict[str, _Kept] = {}


def deployment_key(config: Path | None, sources: Sequence[str]) -> str:
    """Name a deployment: by its configuration file, else by where its models come from."""
    return str(config.absolute()) if config is not None else "\n".join(sorted(sources))


def state_path(directory: str | None, environ: Mapping[str, str], deployment: str) -> Path | None:
    """Give the file of a deployment; None where no directory is set and the user has no home.

    Parameters
    ----------
    directory : as `state_directory` is set.
    """
    name = sha256(deployment.encode(errors="surrogateescape")).hexdigest()[:16] + ".json"
    base = state_directory(directory, environ)
    return None if base is None else base / name


def state_directory(given: str | None, environ: Mapping[str, str]) -> Path | None:
    """Give where is kept what shall outlive a process; None where nothing is set and the user has no home.

    Source: XDG Base Directory Specification, https://specifications.freedesktop.org/basedir-spec/latest/
    """
    if given is not None:
        return Path(given)
    base = Path(environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():  # which the specification has ignored
        base = Path(environ.get("HOME", "")) / ".local" / "state"
    return base / "fairlead" if base.is_absolute() else None


class TrafficState:
    """The changes of one deployment's traffic.

    What cannot be written is logged, and holds until the server ends.

    Parameters
    ----------
    path : its file; None keeps nothing.
    deployment : as `deployment_key` gives it.
    """

    def __init__(self, path: Path | None, deployment: str) -> None:
        self._path = path
        self._deployment = deployment
        self._canaries = {} if path is None else _read(path)

    def canary(self, model: str, settings: CanarySettings, digest: str) -> CanaryTraffic:
        """Say what a canary gets, by what was kept and what is configured.

        Parameters
        ----------
        digest : of the canary's bundle now.
        """
        kept = self._kept(model, settings)
        if kept.rollback is not None and kept.rollback.digest == digest:
            return CanaryTraffic(0.0, kept.rollback.reason)
        return CanaryTraffic(settings.weight if kept.weight is None else kept.weight)

    def set_weight(self, model: str, settings: CanarySettings, weight: float) -> None:
        """Keep a weight; a rollback before it is forgotten."""
        self._keep(model, replace(self._kept(model, settings), weight=weight, rollback=None))

    def roll_back(self, model: str, settings: CanarySettings, rollback: Rollback) -> None:
        """Keep that a canary was taken back; another bundle in its place gets the configured weight."""
        self._keep(model, replace(self._kept(model, settings), weight=None, rollback=rollback))

    def _kept(self, model: str, settings: CanarySettings) -> _Kept:
        none = _Kept(source=settings.source, configured_weight=settings.weight, sticky=settings.sticky)
        kept = self._canaries.get(model, none)
        return kept if replace(kept, weight=None, rollback=None) == none else none

    def _keep(self, model: str, kept: _Kept) -> None:
        self._canaries[model] = kept
        if self._path is None:
            logger.warning("%s: its traffic is not kept for the next start: set web.state_directory", model)
            return
        data = msgspec.json.format(msgspec.json.encode(_File(self._deployment, self._canaries)), indent=1)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self._path, data + b"\n")
        except OSError as error:
            logger.warning(
                "%s: its traffic is not kept for the next start: %s cannot be written: %s",
                model,
                self._path,
                error.strerror,
            )


def _read(path: Path) -> dict[str, _Kept]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File).canaries
    except FileNotFoundError:
        return {}
    except OSError as error:
        reason = error.strerror or ""
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        reason = str(error)
    logger.warning("%s: passed over: expected the traffic of a former run: %s", path, reason)
    return {}
