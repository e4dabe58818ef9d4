"""What is to be served under a name: which bundles, in which parts.

A `Deployment` is the whole of it, as data: the process that decides makes one, those that answer make it so.
Layer L2; imports msgspec and what reads a bundle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from msgspec import Struct

from fairlead.bundle.read import Bundle

Role = Literal["stable", "canary", "shadow"]
ROLES: tuple[Role, ...] = get_args(Role)


class Variant(Struct, frozen=True, kw_only=True):
    """One bundle, on this machine.

    Parameters
    ----------
    name, version, engine : as the bundle says.
    digest : of the bundle; one at the same path with another digest is not this one.
    path : the directory.
    """

    name: str
    version: str
    engine: str
    digest: str
    path: str

    @classmethod
    def of(cls, bundle: Bundle) -> Variant:
        """Describe an open bundle."""
        manifest = bundle.manifest
        return cls(
            name=manifest.name,
            version=manifest.version,
            engine=manifest.engine,
            digest=bundle.digest,
            path=str(Path(bundle.path).absolute()),
        )


class Deployment(Struct, frozen=True, kw_only=True):
    """What is served under one name.

    Parameters
    ----------
    name : under which it is asked for.
    stable : what answers; None while there is nothing that could.
    reason : why `stable` is None, for people.
    canary : answers a share of the requests.
    weight : that share, from 0 to 1.
    sticky : what keeps a client with one variant, as ``header:x-user-id``; None leaves it to chance.
    max_latency_s : above which the canary's answers count as slow; None when nothing does.
    shadow : is asked too, and its answers are only compared.
    is_pending : whether `stable` is on its way.
    is_lazy : loaded by the first request, and let go when memory is needed.
    processes : that run each variant; 0 where it runs in the process that answers.
    """

    name: str
    stable: Variant | None = None
    reason: str = ""
    canary: Variant | None = None
    weight: float = 0.0
    sticky: str | None = None
    max_latency_s: float | None = None
    shadow: Variant | None = None
    is_pending: bool = False
    is_lazy: bool = False
    processes: int = 0

    def variant(self, role: Role) -> Variant | None:
        """Give the bundle that has a role."""
        return {"stable": self.stable, "canary": self.canary, "shadow": self.shadow}[role]

    def variants(self) -> Iterator[tuple[Role, Variant]]:
        """Give the roles that are taken, and by what."""
        for role in ROLES:
            if (variant := self.variant(role)) is not None:
                yield role, variant

    def processes_of(self, role: Role) -> range:
        """Number the processes that a bundle has for itself.

        A shadow always has one, and none in common with the same bundle in another role: it slows nobody.
        """
        if role == "shadow":
            return range(self.processes, self.processes + max(self.processes, 1))
        return range(self.processes)
