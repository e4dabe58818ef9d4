from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fairlead.bundle.sources import is_archive, unpack
from fairlead.bundle.sources.archives import stem
from fairlead.errors import SourceError

MUCH = 10**9
Pack = Callable[[Path, dict[str, bytes]], Path]


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            add(archive, name, data)
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **more: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in more.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


KINDS = pytest.mark.parametrize(("pack", "suffix"), [(tar, ".tar.gz"), (tar, ".tgz"), (zipped, ".ZIP")])


@KINDS
def test_a_directory(
    pack: Pack, suffix: str, files: Path, content: dict[str, bytes], tmp_path: Path, out: Path
) -> None:
    archive = pack(tmp_path / f"churn{suffix}", content)
    assert is_archive(archive.name)
    assert stem(archive.name) == "churn"

    unpack(archive, out, MUCH)

    assert files_of(out) == content


@KINDS
def test_a_single_folder_at_the_top_is_left_away(pack: Pack, suffix: str, tmp_path: Path, out: Path) -> None:
    archive = pack(tmp_path / f"x{suffix}", {"./churn/MLmodel": b"a", "./churn/churn": b"b", "./churn/d/e": b"c"})
    unpack(archive, out, MUCH)
    assert files_of(out) == {"MLmodel": b"a", "churn": b"b", "d/e": b"c"}


def test_what_the_system_s_own_tar_makes(files: Path, content: dict[str, bytes], tmp_path: Path, out: Path) -> None:
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
        archive.add(files, "churn")
    unpack(tmp_path / "x.tgz", out, MUCH)
    assert files_of(out) == content


@KINDS
@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "a/\x01"])
def test_names_that_lead_elsewhere(pack: Pack, suffix: str, name: str, tmp_path: Path, out: Path) -> None:
    archive = pack(tmp_path / f"x{suffix}", {"good": b"", name: b"bad"})
    with pytest.raises(SourceError, match="expected the relative name of a file"):
        unpack(archive, out, MUCH)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} <= {archive, *out.rglob("*")}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_no_links_and_devices(kind: bytes, tmp_path: Path, out: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        add(archive, "link", type=kind, linkname="/etc/passwd")
    with pytest.raises(SourceError, match="link is a link or a device"):
        unpack(tmp_path / "x.tar.gz", out, MUCH)
    assert files_of(out) == {}


def test_no_links_in_a_zip(tmp_path: Path, out: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(SourceError, match="link is a link or a device"):
        unpack(tmp_path / "x.zip", out, MUCH)


@KINDS
def test_a_bomb_stops_at_the_bound(pack: Pack, suffix: str, tmp_path: Path, out: Path) -> None:
    archive = pack(tmp_path / f"x{suffix}", {"a": bytes(3_000_000), "b": bytes(3_000_000)})
    assert archive.stat().st_size < 20_000
    with pytest.raises(SourceError, match=r"more than there is room for .* raise cache\.max_bytes"):
        unpack(archive, out, 4_000_000)
    assert sum(map(len, files_of(out).values())) <= 4_000_000


@KINDS
def test_a_broken_archive(pack: Pack, suffix: str, tmp_path: Path, out: Path) -> None:
    archive = pack(tmp_path / f"x{suffix}", {"a": bytes(range(256)) * 100})
    data = archive.read_bytes()
    for broken in (data[: len(data) // 2], b"<html>", b""):
        archive.write_bytes(broken)
        with pytest.raises(SourceError, match="expected an archive"):
            unpack(archive, out, MUCH)


@KINDS
def test_one_name_twice(pack: Pack, suffix: str, tmp_path: Path, out: Path) -> None:
    archive = pack(tmp_path / f"x{suffix}", {"a": b"1", "./a": b"2"})
    with pytest.raises(SourceError, match="holds a twice"):
        unpack(archive, out, MUCH)


@KINDS
def test_a_file_that_is_also_a_folder(pack: Pack, suffix: str, tmp_path: Path, out: Path) -> None:
    archive = pack(tmp_path / f"x{suffix}", {"a": b"1", "a/b": b"2"})
    with pytest.raises(SourceError, match="twice"):
        unpack(archive, out, MUCH)
