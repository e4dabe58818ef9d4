"""What may be asked about the models of a server while it runs, and what comes of it.

The words between whoever is asked over HTTP and whoever decides, which may be in another process. Layer L2; imports
msgspec and what is data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

from fairlead import config

if TYPE_CHECKING:
    from fairlead.repository.rollback import Counts


class Control(Protocol):
    """Changes what a server serves; every method raises `FairleadError`s, and then nothing has changed."""

    async def reload(self, name: str) -> Reloaded: ...
    async def unload(self, name: str) -> None: ...
    async def traffic(self, name: str) -> Traffic: ...
    async def set_traffic(self, name: str, change: TrafficChange) -> Traffic: ...

    def count(self, name: str, digest: str, counts: Counts) -> None:
        """Hear how a canary did since the last time."""
        ...


class Reloaded(Struct, frozen=True):
    """What came of a look at where a model comes from.

    Parameters
    ----------
    name, version, digest : of what is served now.
    result : ``swapped`` when something new is served, else ``unchanged``.
    """

    name: str
    version: str
    digest: str
    result: Literal["swapped", "unchanged"]


class CanaryChange(Struct, forbid_unknown_fields=True):
    """What a request may change of a canary.

    Parameters
    ----------
    weight : the share of requests, from 0 to 1.
    """

    weight: config.Share


class TrafficChange(Struct, forbid_unknown_fields=True):
    """What a request may change of a model's traffic."""

    canary: CanaryChange


class Share(Struct, frozen=True):
    """What has a role in a model's traffic.

    Parameters
    ----------
    version, digest : of the bundle.
    weight : its share of the requests, from 0 to 1; a shadow's is 0.
    """

    version: str
    digest: str
    weight: float


class Traffic(Struct, frozen=True):
    """Who answers a model's requests.

    Parameters
    ----------
    name : of the model.
    stable, canary, shadow : what has the role; None where nothing has.
    sticky : what keeps a caller with one version.
    rolled_back : why the canary was taken back.
    """

    name: str
    stable: Share | None
    canary: Share | None
    shadow: Share | None
    sticky: str | None
    rolled_back: str | None = None
