from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fairlead.bundle.sources import Resolved, parse, resolve
from fairlead.config import CacheSettings
from fairlead.errors import SourceError

Fetch = Callable[[Resolved], dict[str, bytes]]


def test_a_directory(files: Path, content: dict[str, bytes], settings: CacheSettings, fetch: Fetch) -> None:
    resolved = resolve(parse(str(files)), settings, {})
    assert fetch(resolved) == content
    assert resolved.name == files.name


def test_a_file(tmp_path: Path, settings: CacheSettings, fetch: Fetch) -> None:
    (tmp_path / "churn.pkl").write_bytes(b"0123")
    resolved = resolve(parse((tmp_path / "churn.pkl").as_uri()), settings, {})
    assert fetch(resolved) == {"churn.pkl": b"0123"}
    (file,) = resolved.store.files()
    assert b"".join(resolved.store.read(file, 2)) == b"23"
    assert (resolved.name, file.alone) == ("churn", True)


def test_a_change_is_another_key(tmp_path: Path, settings: CacheSettings) -> None:
    (tmp_path / "a").write_bytes(b"1")
    source = parse(str(tmp_path))
    key = resolve(source, settings, {}).key
    assert resolve(source, settings, {}).key == key
    (tmp_path / "next").write_bytes(b"2")
    (tmp_path / "next").rename(tmp_path / "a")
    assert resolve(source, settings, {}).key != key


def test_what_is_not_there(tmp_path: Path, settings: CacheSettings) -> None:
    with pytest.raises(SourceError, match="expected a model, there is no file or directory"):
        resolve(parse(str(tmp_path / "none")), settings, {})
    with pytest.raises(SourceError, match="there are none"):
        resolve(parse(str(tmp_path)), settings, {})
    (tmp_path / "link").symlink_to(tmp_path / "none")
    with pytest.raises(SourceError, match="link: expected a file, got a broken link"):
        resolve(parse(str(tmp_path)), settings, {})
