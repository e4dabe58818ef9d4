import hashlib
from pathlib import Path

import numpy as np
import pytest

from fairlead.dashboard.rows import keys
from fairlead.dashboard.rows.keys import KeysWriter, digests_of


def test_a_digest_is_the_same_everywhere() -> None:
    assert digests_of(["é"]).tobytes() == hashlib.blake2b("é".encode(), digest_size=8).digest()


def test_rows_are_found_by_digest_whatever_the_order_they_came_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_CHUNK", 64)
    digests_of = keys.digests_of
    # Some digests are shared, by rows next to each other and far apart, and across the chunks they are read in.
    monkeypatch.setattr(keys, "digests_of", lambda texts: digests_of(texts) // np.uint64(2**52))
    texts = [f"ride {place}" for place in range(3_000)]
    writer = KeysWriter(tmp_path)
    for first in range(0, 3_000, 700):
        writer.add(texts[first : first + 700])
    found = writer.finish()
    by_digest: dict[int, list[int]] = {}
    for place, text in enumerate(texts):
        by_digest.setdefault(int(keys.digests_of([text])[0]), []).append(place)
    assert all(found.places(text).tolist() == by_digest[int(keys.digests_of([text])[0])] for text in texts)
    shared = sorted(places for places in by_digest.values() if len(places) > 1)
    assert sorted(places.tolist() for places in found.shared()) == shared
    assert found.count_shared() == sum(len(places) - 1 for places in shared)
    assert {path.name for path in tmp_path.iterdir()} == {keys.DIGESTS, keys.PLACES}


def test_one_row_is_enough(tmp_path: Path) -> None:
    writer = KeysWriter(tmp_path)
    writer.add(["a"])
    found = writer.finish()
    assert (found.places("a").tolist(), found.places("b").tolist(), found.count_shared()) == ([0], [], 0)
