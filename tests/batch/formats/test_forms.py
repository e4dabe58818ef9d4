import pytest

from fairlead.batch import formats
from fairlead.batch.formats import Form, named
from fairlead.errors import InputError


@pytest.mark.parametrize(
    ("path", "form", "suffix"),
    [
        ("a.parquet", Form("parquet"), ".parquet"),
        ("s3://b/A.PQ", Form("parquet"), ".parquet"),
        ("2026.10.csv", Form("csv"), ".csv"),
        ("a.CSV.GZ", Form("csv", "gzip"), ".csv.gz"),
        ("dir.gz/a.jsonl.zst", Form("jsonl", "zstd"), ".jsonl.zst"),
        ("a.ndjson", Form("jsonl"), ".jsonl"),
    ],
)
def test_a_suffix_names_a_form(path: str, form: Form, suffix: str) -> None:
    assert named(path) == form
    assert form.suffix == suffix
    assert named(f"a{suffix}") == form


@pytest.mark.parametrize("path", ["a", "a.txt", "a.gz", "a.txt.gz", "csv", "dir.csv/a"])
def test_another_suffix_is_told_with_those_that_are_known(path: str) -> None:
    with pytest.raises(InputError, match=r"\.parquet, \.pq, \.csv, \.jsonl, \.ndjson, .*\.gz or \.zst"):
        named(path)


def test_parquet_is_not_compressed_again() -> None:
    with pytest.raises(InputError, match="Parquet is compressed inside"):
        named("a.parquet.gz")


def test_every_format_has_its_module() -> None:
    for name in ("parquet", "csv", "jsonl"):
        found = formats.module(name)
        assert callable(found.reader)
        assert callable(found.encoder)
        assert callable(found.writer)
