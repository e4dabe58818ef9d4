"""What is below a root is taken, however it is written; what is not is refused, however it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.web.file_jobs.roots import NotAllowed, Roots


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a root with a file, a folder, and a link to what is beside it."""
    inside = tmp_path / "data"
    (inside / "rides").mkdir(parents=True)
    (inside / "rides" / "a.csv").touch()
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "a.csv").touch()
    (inside / "out").symlink_to(tmp_path / "database")
    (inside / "again").symlink_to(inside / "rides")
    return inside


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("{root}/rides/a.csv", "rides/a.csv"),
        ("{root}/new/b.csv", "new/b.csv"),
        ("{root}//rides/./a.csv", "rides/a.csv"),
        ("{root}/rides/../rides/a.csv", "rides/a.csv"),
        ("{root}/../data/rides/", "rides/"),
        ("{root}/again/a.csv", "rides/a.csv"),
        ("{root}/again/*.csv", "rides/*.csv"),
        ("{root}", ""),
        ("{root}/*/[ab].csv", "*/[ab].csv"),
        ("{root}/{{year:04d}}/{{month:02d}}-{{day}}.csv", "{year:04d}/{month:02d}-{day}.csv"),
        ("rides/a.csv", "rides/a.csv"),
        ("~/-x", "~/-x"),
    ],
)
def test_below_a_root(root: Path, path: str, place: str) -> None:
    placed = Roots([str(root)]).place(path.format(root=root))
    assert placed == f"{root}/{place}".removesuffix("/" if not place else "")
    assert Roots([str(root)]).place(placed) == placed


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{root}/../database/a.csv",
        "{root}base/a.csv",
        "{root}/out/a.csv",
        "{root}/out/*.csv",
        "{root}/rides/../../database/a.csv",
        "{root}/*/../../database/a.csv",
        "{root}/{{year}}/../../database",
        "{root}/..*/a.csv/..",
        "../database/a.csv",
        "{root}/..{{month:/>4}}/a.csv",
        "{root}/{{year:c}}{{year:c}}/database",
        "{root}/{{year.__class__}}",
        "{root}/{{{{x}}}}",
        "{root}/a\0b",
        "/*/a.csv",
        "/",
        "file:///etc/passwd",
        "postgresql://host/data",
        "s3://data/rides/a.csv",
    ],
)
def test_not_below_a_root(root: Path, path: str) -> None:
    with pytest.raises(NotAllowed):
        Roots([str(root)]).place(path.format(root=root))


def test_a_root_that_is_not_there_is_no_file_beside_others(tmp_path: Path) -> None:
    roots = Roots([f"{tmp_path}/none/"])
    with pytest.raises(NotAllowed):
        roots.place(f"{tmp_path}/none")
    assert roots.place(f"{tmp_path}/none/a.csv") == f"{tmp_path}/none/a.csv"


def test_a_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert Roots([f"{tmp_path}/link"]).place(f"{tmp_path}/link/a.csv") == f"{tmp_path}/real/a.csv"


def test_the_whole_machine_may_be_a_root(root: Path) -> None:
    assert Roots(["/"]).place(f"{root}/out/a.csv") == f"{root.parent}/database/a.csv"


@pytest.mark.parametrize(
    "path",
    ["s3://b/p/a.csv", "s3://b/p/x/", "s3://b/p/*/a.csv", "s3://b/p/{year}/a", "s3://c", "s3://c/*", "a.csv"],
)
def test_below_a_prefix(path: str) -> None:
    roots = Roots(["s3://b/p"] if path == "a.csv" else ["s3://b/p/", "s3://c", "/srv"])
    assert roots.place(path) == {"a.csv": "s3://b/p/a.csv"}.get(path, path)


@pytest.mark.parametrize(
    "path",
    [
        "s3://b/p",
        "s3://b/prefix/a.csv",
        "s3://b/p*",
        "s3://b/p*/a.csv",
        "s3://b/*/a.csv",
        "s3://b/{year}/a.csv",
        "s3://b",
        "s3://other/p/a.csv",
        "s3://B/p/a.csv",
        "s3://x@b/p/a.csv",
        "s3://*/p/a.csv",
        "s3:///b/p/a.csv",
        "s3://b/p/../a.csv",
        "s3://b/p/./a.csv",
        "s3a://b/p/a.csv",
        "a.csv",
        "/srv2/a.csv",
    ],
)
def test_not_below_a_prefix(path: str) -> None:
    with pytest.raises(NotAllowed):
        Roots(["s3://b/p", "/srv"]).place(path)


@pytest.mark.parametrize("path", ["rides/", "rides/*.csv", "**/*.csv", "rides/{year}.csv", "{month}/x.csv", ""])
def test_what_wildcards_and_directories_lead_to_is_looked_at(root: Path, path: str) -> None:
    roots = Roots([str(root)])
    (root / "out").unlink()
    placed = roots.place(f"{root}/{path}".rstrip("/") + ("/" if path.endswith("/") else ""))
    roots.check(placed)
    (root / "rides" / "2026.csv").symlink_to("a.csv")
    roots.check(placed)
    (root / "rides" / "2027.csv").symlink_to(root.parent / "database" / "a.csv")
    (root / "10").symlink_to(root.parent / "database")
    (root.parent / "database" / "x.csv").touch()
    with pytest.raises(NotAllowed):
        roots.check(placed)


def test_a_link_that_was_put_there_since_is_seen(root: Path) -> None:
    roots = Roots([str(root)])
    placed = roots.place(f"{root}/new/a.csv")
    roots.check(placed)
    (root / "new").symlink_to("rides")
    with pytest.raises(NotAllowed):
        roots.check(placed)
