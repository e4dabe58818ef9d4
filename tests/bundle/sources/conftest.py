"""Small files to fetch, and servers that answer as no server should."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairlead.bundle.sources import Resolved
from fairlead.config import CacheSettings

FILES = {"MLmodel": b"flavors: {}\n", "model.pkl": bytes(range(256)) * 2000, "data/sub folder/ü.txt": "ü".encode()}


@pytest.fixture
def hung() -> Iterator[str]:
    """Give the address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(scope="session")
def settings() -> CacheSettings:
    return CacheSettings(connect_timeout_s=5, read_timeout_s=20)


@pytest.fixture(scope="session")
def hasty() -> CacheSettings:
    return CacheSettings(connect_timeout_s=0.3, read_timeout_s=0.3)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory of `FILES`; do not change it."""
    directory = tmp_path_factory.mktemp("files")
    for name, data in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


@pytest.fixture(scope="session")
def content() -> dict[str, bytes]:
    return FILES


@pytest.fixture(scope="session")
def fetch() -> Callable[[Resolved], dict[str, bytes]]:
    """Read every file of what was resolved, and see to it that their sizes were told."""

    def read(resolved: Resolved) -> dict[str, bytes]:
        found = {}
        for file in resolved.store.files():
            found[file.name] = b"".join(resolved.store.read(file, 0))
            assert file.size_bytes == len(found[file.name])
        return found

    return read
