import gc
import gzip
import io
import random
from typing import Any

import pyarrow as pa
import pytest

from fairlead.batch.formats.compression import TextStream, TextWriter, packed
from fairlead.batch.formats.form import Compression
from fairlead.errors import InputError, OutputError

TEXT = b"".join(b"%d,%d\n" % (i, random.Random(i).random() * 1e9) for i in range(20_000))


def written(compression: Compression | None, parts: list[bytes], head: bytes = b"") -> bytes:
    file = io.BytesIO()
    writer = TextWriter(file, compression, head)
    for part in parts:
        writer.write(packed(part, compression))
    writer.close()
    return file.getvalue()  # fails where the file was closed


def read(data: bytes, compression: Compression | None) -> bytes:
    stream = TextStream(io.BytesIO(data), len(data), "in.csv.gz", compression)
    parts = []
    while part := stream.read(10_000):
        parts.append(part)
    assert stream.share == 1.0
    assert all(len(part) == 10_000 for part in parts[:-1])
    return b"".join(parts)


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
@pytest.mark.parametrize("parts", [[], [TEXT], [TEXT[:1000], TEXT[1000:]]])
def test_what_was_written_is_read(compression: Compression | None, parts: list[bytes]) -> None:
    data = written(compression, parts, b"a,b\n")
    assert read(data, compression) == b"a,b\n" + b"".join(parts)
    assert written(compression, parts, b"a,b\n") == data


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_an_empty_file_is_one_that_can_be_read(compression: Compression) -> None:
    data = written(compression, [])
    assert data
    assert read(data, compression) == b""


def test_members_in_a_row_are_one_text() -> None:
    data = gzip.compress(TEXT) + gzip.compress(TEXT)
    assert read(data, "gzip") == TEXT * 2
    frames = written("zstd", [TEXT]) * 2
    assert read(frames, "zstd") == TEXT * 2


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize("cut", [-1, -5, -1000, 6])
def test_a_file_that_breaks_off_is_noticed(compression: Compression, n_members: int, cut: int) -> None:
    whole = written(compression, [TEXT])
    data = whole * (n_members - 1) + whole[:cut]
    with pytest.raises(InputError, match=r"in\.csv\.gz: expected (gzip|zstd), got"):
        read(data, compression)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("data", [b"", TEXT])
def test_what_is_not_compressed_is_refused(compression: Compression, data: bytes) -> None:
    with pytest.raises(InputError, match=r"expected (gzip|zstd)"):
        read(data, compression)


def test_a_byte_that_changed_is_noticed() -> None:
    data = bytearray(gzip.compress(TEXT))
    data[len(data) // 2] ^= 1
    with pytest.raises(InputError, match="expected gzip"):
        read(bytes(data), "gzip")


def test_the_share_is_that_of_the_compressed_file() -> None:
    data = written("gzip", [TEXT] * 30)
    stream = TextStream(io.BytesIO(data), len(data), "in", "gzip")
    assert stream.share < 0.1
    stream.read(len(TEXT) * 15)
    assert 0.4 < stream.share < 0.6


def test_gzip_says_nothing_of_the_time() -> None:
    assert packed(TEXT, "gzip")[4:8] == bytes(4)


def test_other_libraries_read_it() -> None:
    assert gzip.decompress(written("gzip", [TEXT, TEXT], b"a\n")) == b"a\n" + TEXT * 2
    # One frame: some readers take the first only.
    data = written("zstd", [TEXT, TEXT], b"a\n")
    assert pa.decompress(data, len(TEXT) * 2 + 2, "zstd").to_pybytes() == b"a\n" + TEXT * 2


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_file_that_is_given_up_is_left_quietly(compression: Compression, capfd: pytest.CaptureFixture[str]) -> None:
    file = io.BytesIO()
    writer = TextWriter(file, compression)
    writer.write(packed(TEXT, compression))
    file.close()
    del writer
    gc.collect()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_what_a_file_raises_comes_through(compression: Compression | None) -> None:
    class Broken(io.BytesIO):
        def read(self, n_bytes: int | None = -1) -> bytes:
            raise InputError("changed since it was opened")

        def write(self, part: Any) -> int:
            raise OutputError("no space")

    with pytest.raises(InputError, match="changed since"):
        TextStream(Broken(), 10, "in", compression).read(10)
    with pytest.raises(OutputError, match="no space"):  # noqa: PT012  # either may raise
        writer = TextWriter(Broken(), compression, b"head")
        writer.close()
