from __future__ import annotations

import numpy as np
import pytest

from fairlead.errors import BundleError
from fairlead.predict.forest import ARRAYS, ENTRY, LEAF, NODE, Finish, Forest, decode_forest, encode_forest

STUMP = Forest(
    sizes=np.array([1], np.int32),
    cuts=np.array([0.5]),
    entry_starts=np.array([0, 0, 1, 2], np.uint32),
    entries=np.array([(0, 1), (0, 1)], ENTRY),
    usual=np.array([0], np.uint16),
    nodes=np.array([(0, 0, 1), (0, LEAF, 0), (0, LEAF, 1)], NODE),
    roots=np.array([0], np.uint32),
    targets=np.array([0], np.uint16),
    leaves=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    base=np.zeros(3),
    finish=Finish(divisor=2.0, answer="largest"),
)


def test_what_is_written_is_read() -> None:
    data = encode_forest(STUMP)
    found = decode_forest(data, "trees.bin")

    assert found is not None
    assert found.finish == STUMP.finish
    for name, dtype in ARRAYS.items():
        assert np.array_equal(getattr(found, name), getattr(STUMP, name))
        assert getattr(found, name).dtype == dtype
    assert encode_forest(found) == data


def test_another_form_is_left_to_the_graph() -> None:
    assert decode_forest(b"fairlead trees 2\n" + bytes(8), "trees.bin") is None
    assert decode_forest(b"", "trees.bin") is None


@pytest.mark.parametrize("kept", [17, 20, 40, -1, -8])
def test_a_cut_file_is_refused(kept: int) -> None:
    with pytest.raises(BundleError, match=r"here/trees\.bin: expected the trees of a bundle, got .*: build it again"):
        decode_forest(encode_forest(STUMP)[:kept], "here/trees.bin")


def test_a_longer_file_is_refused() -> None:
    with pytest.raises(BundleError, match="bytes, told"):
        decode_forest(encode_forest(STUMP) + bytes(8), "trees.bin")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"lengths":[4', b'"lengths":[-4'),
        (b'"lengths":[4,', b'"lengths":[3,'),
        (b'"lengths":[4,', b'"lengths":['),
        (b'"n_values":3', b'"n_values":0'),
        (b'"n_values":3', b'"n_values":4'),
        (b'"largest"', b'"smallest"'),
    ],
)
def test_a_header_that_lies_is_refused(old: bytes, new: bytes) -> None:
    data = encode_forest(STUMP)
    start = data.index(b"{")
    length = int.from_bytes(data[start - 4 : start], "little")
    header = data[start : start + length].replace(old, new)
    assert header != data[start : start + length]
    head = data[: start - 4] + len(header).to_bytes(4, "little") + header
    body = data[start + length + -(start + length) % 8 :]
    with pytest.raises(BundleError, match="expected the trees of a bundle"):
        decode_forest(head + bytes(-len(head) % 8) + body, "trees.bin")
