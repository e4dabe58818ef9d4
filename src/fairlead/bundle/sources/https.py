"""A file at an address, with its digest: `https://HOST/PATH#sha256=HEX`. An archive stands for its directory.

The digest is what makes an address a version: what came is what was meant, or it is refused. Layer L1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fairlead.bundle.sources.archives import stem
from fairlead.bundle.sources.store import RemoteFile, Resolved
from fairlead.bundle.sources.transport import Access, Refused, Transport, shown
from fairlead.errors import SourceError

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

FORM = "https://HOST/PATH#sha256=HEX"
_DIGEST = re.compile(r"sha256=([0-9a-fA-F]{64})")


@dataclass(frozen=True)
class AddressSource:
    """A file at an address.

    Parameters
    ----------
    url : without the digest; its query may hold a signature, so it is told to nobody.
    sha256 : lower-case hex.
    """

    url: str = field(repr=False)
    sha256: str

    @property
    def text(self) -> str:
        return f"{shown(self.url)}#sha256={self.sha256}"

    def resolve(self, settings: CacheSettings, environ: Mapping[str, str]) -> Resolved:
        del environ
        name = PurePosixPath(unquote(urlsplit(self.url).path)).name
        store = AddressStore(self.url, name, self.sha256, settings)
        # The name is part of it: it tells the format, and whether it is an archive.
        return Resolved(self.text, f"sha256={self.sha256} {name}", stem(name), None, store)


def parse(text: str) -> AddressSource:
    """Read an address with a digest.

    Raises
    ------
    SourceError
        For a wrong form.
    """
    url, _, fragment = text.partition("#")
    parts = urlsplit(url)
    digest = _DIGEST.fullmatch(fragment)
    if digest is None:
        raise SourceError(
            f"{shown(url)}: expected the file's digest behind its address, as in {FORM}, got "
            f"{'#' + fragment[:80] if fragment else 'none'}: `sha256sum FILE` gives it"
        )
    if parts.username is not None or parts.password is not None:
        raise SourceError(f"{shown(url)}: expected an address without a user and a password: they would be told on")
    if not parts.hostname or not PurePosixPath(unquote(parts.path)).name:
        raise SourceError(f"{shown(url)}: expected {FORM}, the address of a file")
    return AddressSource(url, digest[1].lower())


class AddressStore:
    """The one file of an address. See `Store`."""

    def __init__(self, url: str, name: str, sha256: str, settings: CacheSettings) -> None:
        self._url = url
        self._name = name
        self._sha256 = sha256
        self._transport = Transport(settings, "client", Access(looked="an address that needs none, or a signed one"))

    def files(self) -> list[RemoteFile]:
        try:
            size_bytes, etag = self._transport.size_and_etag(self._url)
        except Refused as error:
            raise SourceError(f"{error}: see the address") from error
        return [RemoteFile(self._name, size_bytes, etag, self._sha256, alone=True)]

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        try:
            yield from self._transport.read(self._url, start, file.etag)
        except Refused as error:
            raise SourceError(f"{error}: see the address") from error
