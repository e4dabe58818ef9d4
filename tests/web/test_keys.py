"""API keys: entries read from a real file and an environment, and found in the headers of a request."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import ConfigError
from fairlead.web.keys import Keys, make

HASH = hashlib.sha256(b"one").hexdigest()
OTHER = hashlib.sha256(b"two").hexdigest()


def of(text: str) -> Keys:
    keys = Keys.read({"FAIRLEAD_API_KEYS": text})
    assert keys is not None
    return keys


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        of(text)
    # Neither the message nor what it came from repeats an entry.
    assert HASH not in str(caught.value)
    assert HASH not in str(caught.value.__cause__)
    return str(caught.value)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(0o600)
    return path


def test_a_made_key_is_found_again() -> None:
    key, line = make("dashboard", admin=True, requests_per_s=0.5, burst=3)
    assert key.startswith("fl_")
    assert len(key) == 3 + 43  # 256 bits in base64
    assert key not in line
    keys = of(line)
    (known,) = keys
    assert (known.name, known.is_admin, known.requests_per_s, known.burst) == ("dashboard", True, 0.5, 3)
    assert keys.find([(b"x-api-key", key.encode())]) is known
    assert make("dashboard")[0] != key


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(lambda name: not name.startswith("fl_")),
    st.booleans(),
    st.none() | st.floats(1e-6, 1e6),
    st.integers(1, 10**6),
)
def test_every_entry_made_is_read_as_it_was_meant(name: str, admin: bool, rate: float | None, burst: int) -> None:
    key, line = make(name, admin, rate, None if rate is None else burst)
    found = of(line).find([(b"authorization", b"Bearer " + key.encode())])
    assert found is not None
    assert (found.name, found.is_admin) == (name, admin)
    assert found.requests_per_s == (None if rate is None else pytest.approx(rate, abs=5.1e-7))
    assert found.burst == (None if rate is None else burst)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "a;b", "a#b", "-a", "a" * 65, "fl_a", "ä"])
def test_a_name_that_no_entry_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected a name"):
        make(name)


@pytest.mark.parametrize(
    ("requests_per_s", "burst"), [(0, None), (-1, None), (1e-7, None), (2e6, None), (None, 1), (1, 0), (1, 10**7)]
)
def test_a_limit_that_no_entry_can_have_is_refused(requests_per_s: float | None, burst: int | None) -> None:
    with pytest.raises(ConfigError, match="the key 'a': expected"):
        make("a", requests_per_s=requests_per_s, burst=burst)


def test_without_configuration_there_are_no_keys() -> None:
    assert Keys.read({}) is None


def test_variable_and_file_count_together(keys_file: Path) -> None:
    keys_file.write_text(f"\n# who may\r\n  two sha256:{OTHER.upper()}\tadmin  # Ann's; ask her\r\n\n", "utf-8-sig")
    for environ, file in (({}, keys_file), ({"FAIRLEAD_API_KEYS_FILE": str(keys_file)}, None)):
        assert [key.name for key in Keys.read(environ, file) or ()] == ["two"]
    both = Keys.read({"FAIRLEAD_API_KEYS": f"one sha256:{HASH}; # no more\n"}, keys_file)
    assert [(key.name, key.is_admin) for key in both or ()] == [("one", False), ("two", True)]
    assert len(both or ()) == 2


def test_a_limit_without_a_burst_has_one_of_a_second() -> None:
    slow, fast, exact = of(
        f"slow sha256:{HASH} requests_per_s=0.1;fast sha256:{OTHER} requests_per_s=2.5;"
        f"exact sha256:{'0' * 64} burst=7 requests_per_s=20"
    )
    assert (slow.burst, fast.burst, exact.burst) == (1, 3, 7)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("one", "expected NAME sha256:HEX"),
        (f"sha256:{HASH}", "expected NAME sha256:HEX"),
        (f"one {HASH}", "expected NAME sha256:HEX"),
        (f"one sha256:{HASH[1:]}", "expected NAME sha256:HEX"),
        (f"one md5:{HASH[:32]}", "expected NAME sha256:HEX"),
        (f"fl_{'x' * 43} sha256:{HASH}", "expected a name, got something that begins as a key does"),
        (f"one sha256:{HASH} amdin", "expected admin, requests_per_s=N or burst=N"),
        (f"one sha256:{HASH} admin admin", "expected admin once"),
        (f"one sha256:{HASH} burst=1", "expected requests_per_s=N beside burst=N"),
        (f"one sha256:{HASH} requests_per_s=0", "expected requests_per_s from"),
        (f"one sha256:{HASH} requests_per_s=nan", "expected admin, requests_per_s=N or burst=N"),
        (f"one sha256:{HASH} requests_per_s={'9' * 400}", "expected requests_per_s from"),
        (f"one sha256:{HASH} requests_per_s=1 burst=0", "expected burst from"),
        (f"one sha256:{HASH} requests_per_s=1 burst={'9' * 5000}", "expected burst from"),
    ],
)
def test_a_bad_entry_is_told_by_its_place(keys_file: Path, entry: str, what: str) -> None:
    assert refusal(entry).startswith(f"FAIRLEAD_API_KEYS, entry 1: {what}")
    keys_file.write_text(f"# keys\n{entry}\n")
    with pytest.raises(ConfigError) as caught:
        Keys.read({}, keys_file)
    assert str(caught.value).startswith(f"{keys_file}, line 2: {what}")


def test_a_key_in_plain_text_is_told_without_it() -> None:
    key, _ = make("one")
    for entry in (key, f"one {key}", f"one:{key}"):
        message = refusal(entry)
        assert "looks like a key itself" in message
        assert key not in message


def test_every_bad_entry_is_told_at_once() -> None:
    text = f"one sha256:{HASH}; one sha256:{OTHER}; two sha256:{HASH}; three; four sha256:{'0' * 64}"
    assert [line.partition(",")[2] for line in refusal(text).split("\n")] == [
        " entry 2: expected another name than at FAIRLEAD_API_KEYS, entry 1, got the same",
        " entry 3: expected another key than at FAIRLEAD_API_KEYS, entry 1, got the same",
        " entry 4: expected NAME sha256:HEX [admin] [requests_per_s=N] [burst=N], got something else",
    ]


@pytest.mark.parametrize("text", ["", " ;\n", "# none yet"])
def test_configured_without_a_key_is_an_error(keys_file: Path, text: str) -> None:
    assert "expected an API key, got none" in refusal(text)
    keys_file.write_text(text.replace(";", ""))
    with pytest.raises(ConfigError, match="expected an API key, got none"):
        Keys.read({}, keys_file)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, keys_file: Path) -> None:
    for path, what in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=what):
            Keys.read({}, path)
    with pytest.raises(ConfigError, match="No such file"):
        Keys.read({"FAIRLEAD_API_KEYS_FILE": str(tmp_path / "none")})
    keys_file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="expected API keys in UTF-8"):
        Keys.read({}, keys_file)


def test_two_files_are_one_too_many(tmp_path: Path, keys_file: Path) -> None:
    keys_file.write_text(f"one sha256:{HASH}")
    assert Keys.read({"FAIRLEAD_API_KEYS_FILE": str(keys_file)}, keys_file)
    with pytest.raises(ConfigError, match="name two files"):
        Keys.read({"FAIRLEAD_API_KEYS_FILE": str(keys_file)}, tmp_path / "other")


@pytest.mark.parametrize(("mode", "word"), [(0o600, None), (0o640, None), (0o644, "can read"), (0o666, "can add")])
def test_a_file_open_to_others_is_warned_of(keys_file: Path, mode: int, word: str | None) -> None:
    keys_file.write_text(f"one sha256:{HASH}")
    keys_file.chmod(mode)
    keys = Keys.read({}, keys_file)
    assert keys is not None
    assert [word in warning for warning in keys.warnings if word] == [True] * bool(word)
    assert len(keys.warnings) == bool(word)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ([(b"x-api-key", b"one")], "one"),
        ([(b"x-api-key", b" two ")], "two"),
        ([(b"authorization", b"Bearer one")], "one"),
        ([(b"authorization", b"bEARER   two")], "two"),
        ([(b"authorization", b"Bearer of-a-proxy"), (b"x-api-key", b"two")], "two"),
        ([(b"x-api-key", b"two"), (b"authorization", b"Bearer of-a-proxy")], "two"),
        ([(b"x-api-key", b"wrong"), (b"authorization", b"Bearer one")], None),
        ([(b"authorization", b"Basic one")], None),
        ([(b"authorization", b"one")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"Bearer ")], None),
        ([(b"x-api-key", b"")], None),
        ([(b"x-api-key", HASH.encode())], None),
        ([(b"x-api-key", b"sha256:" + HASH.encode())], None),
        ([(b"x-api-key", b"\xff\x00")], None),
        ([(b"cookie", b"one"), (b"host", b"localhost")], None),
        ([], None),
    ],
)
def test_a_key_is_found_in_the_headers(headers: list[tuple[bytes, bytes]], name: str | None) -> None:
    found = of(f"one sha256:{HASH};two sha256:{OTHER}").find(headers)
    assert (found and found.name) == name


def test_a_key_does_not_show_its_digest() -> None:
    (key,) = of(f"one sha256:{HASH}")
    assert "digest" not in repr(key)
